"""What the model reads: rows, answers, and the equality of many targets per row with one per row."""

import numpy as np
import pytest
import torch

from peso.data.examples import targets_of_block
from peso.lm.batching import batches_of_similar_length
from peso.lm.likelihood import CodeLikelihood
from peso.lm.rows import Rows, many_targets_per_row, one_target_per_row
from peso.lm.templates import INSTRUCT_SUFFIX
from peso.types import TemplateName
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset


def test_one_row_per_target_reads_exactly_its_history() -> None:
    dataset, codes = tiny_dataset(), tiny_codes()
    _, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, dataset, codes)
    targets = targets_of_block(dataset, 1, "test")
    batch = builder.batch(one_target_per_row(dataset, targets, 4))
    for row, target in enumerate(targets):
        start = max(dataset.user_offsets[dataset.event_user[target]], target - 4)
        items = dataset.event_item[start : target + 1]
        expected = [tokenizer.bos_token_id, *vocabulary.item_token_ids[items].ravel()[:-1].tolist()]
        assert batch.input_ids[row, : len(expected)].tolist() == expected
        assert (batch.input_ids[row, len(expected) :] == vocabulary.pad_token_id).all()
        # The first answer stands on the last token of the history.
        place = int(batch.answer_index[row, 0]) - row * batch.input_ids.shape[1]
        assert place == 3 * (target - start)
    assert batch.codes.tolist() == codes[dataset.event_item[targets]].tolist()


def test_instruct_puts_words_around_the_history() -> None:
    dataset, codes = tiny_dataset(), tiny_codes()
    _, tokenizer = tiny_backbone()
    builder, _ = tiny_builder(tokenizer, dataset, codes, "instruct")
    text = str(tokenizer.decode(builder.prompt(np.array([3, 5]))))
    assert text.endswith(INSTRUCT_SUFFIX.strip())
    assert text.count("<a_") == 2
    assert tokenizer.unk_token not in text


@pytest.mark.parametrize("normaliser", ["level", "vocabulary"])
def test_many_targets_per_row_equal_one_per_row_where_histories_agree(normaliser: str) -> None:
    dataset, codes = tiny_dataset(), tiny_codes()
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, dataset, codes)
    likelihood = CodeLikelihood(vocabulary, normaliser)  # type: ignore[arg-type]
    targets = targets_of_block(dataset, 0, "train")
    window = 1000  # longer than any history, so that both ways see the same
    together = builder.batch(many_targets_per_row(dataset, targets, window, max_targets=50))
    alone = builder.batch(one_target_per_row(dataset, targets, window))
    assert together.input_ids.shape[0] < alone.input_ids.shape[0]
    assert together.events.tolist() == alone.events.tolist()
    with torch.no_grad():
        losses = [likelihood.negative_log_likelihood(model, batch) for batch in (together, alone)]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)


def test_a_row_shows_each_target_at_least_its_window() -> None:
    dataset = tiny_dataset(20, 60, 4)
    targets = targets_of_block(dataset, 2, "train")
    rows = many_targets_per_row(dataset, targets, max_history=3, max_targets=2)
    covered = np.concatenate([np.arange(f, e) for f, e in zip(rows.first_target, rows.end, strict=True)])
    assert covered.tolist() == targets.tolist()
    assert rows.num_targets.max() <= 2
    offsets = dataset.user_offsets[dataset.event_user[rows.first_target]]
    assert (rows.start == np.maximum(offsets, rows.first_target - 3)).all()


@pytest.mark.parametrize("template", ["sid", "instruct"])
def test_a_target_does_not_depend_on_other_rows_or_padding(template: TemplateName) -> None:
    dataset, codes = tiny_dataset(), tiny_codes()
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, dataset, codes, template)
    likelihood = CodeLikelihood(vocabulary, "level")
    rows = one_target_per_row(dataset, targets_of_block(dataset, 1, "test"), 20)
    with torch.no_grad():
        together = likelihood.negative_log_likelihood(model, builder.batch(rows))
        for number in range(len(rows)):
            alone = likelihood.negative_log_likelihood(model, builder.batch(rows.take(np.array([number]))))
            torch.testing.assert_close(alone[0], together[number], atol=1e-5, rtol=1e-5)


def test_likelihood_equals_the_plain_forward_pass() -> None:
    dataset, codes = tiny_dataset(), tiny_codes()
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, dataset, codes)
    rows = one_target_per_row(dataset, targets_of_block(dataset, 0, "test")[:1], 20)
    batch = builder.batch(rows)
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids).logits.flatten(0, 1)[batch.answer_index[0]]
        for normaliser in ("level", "vocabulary"):
            losses = CodeLikelihood(vocabulary, normaliser).negative_log_likelihood(model, batch)[0]
            for level, token_ids in enumerate(vocabulary.level_token_ids):
                code = int(batch.codes[0, level])
                scores, place = logits[level], int(token_ids[code])
                if normaliser == "level":
                    scores, place = scores[torch.from_numpy(token_ids)], code
                assert losses[level].item() == pytest.approx(-torch.log_softmax(scores, 0)[place].item(), abs=1e-5)


def test_batches_hold_every_row_once_and_are_seeded() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, size=200)
    batches = batches_of_similar_length(lengths, np.ones(200, dtype=np.int64), 16, seed=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    again = batches_of_similar_length(lengths, np.ones(200, dtype=np.int64), 16, seed=1)
    assert [b.tolist() for b in batches] == [b.tolist() for b in again]
    other = batches_of_similar_length(lengths, np.ones(200, dtype=np.int64), 16, seed=2)
    assert [b.tolist() for b in batches] != [b.tolist() for b in other]


def test_rows_of_no_targets() -> None:
    nothing = np.array([], dtype=np.int64)
    rows = many_targets_per_row(tiny_dataset(), nothing, 20, 20)
    assert isinstance(rows, Rows)
    assert len(rows) == 0


def test_flat_rows_are_written_alike_with_and_without_a_loop() -> None:
    dataset = tiny_dataset(20, 60, 4)
    _, tokenizer = tiny_backbone()
    builder, _ = tiny_builder(tokenizer, dataset, tiny_codes(60))
    rows = many_targets_per_row(dataset, targets_of_block(dataset, 2, "train"), 5, 3)
    at_once = builder.batch(rows)
    for number in range(len(rows)):
        alone = builder.batch(rows.take(np.array([number])), line_tokens=1)
        length = alone.input_ids.shape[1]
        assert at_once.input_ids[number, :length].tolist() == alone.input_ids[0].tolist()
        assert (at_once.input_ids[number, length:] == tokenizer.pad_token_id).all()
        mine = np.isin(at_once.events, alone.events)
        assert at_once.events[mine].tolist() == alone.events.tolist()
        places = at_once.answer_index[torch.from_numpy(mine)] - number * at_once.input_ids.shape[1]
        assert places.tolist() == alone.answer_index.tolist()
        assert at_once.codes[torch.from_numpy(mine)].tolist() == alone.codes.tolist()
