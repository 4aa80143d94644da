"""Normalisers, bounds, exact search and fixed shapes against brute force."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from peso.config import DecodingConfig
from peso.decoding.beam import BeamResult, beam_search
from peso.decoding.branches import StockBody
from peso.decoding.code_scores import CodeScores
from peso.decoding.cuda_graphs import GraphedSearch, floor_power_of_two, padded_inputs
from peso.decoding.recommend import Recommender, RememberedItems
from peso.decoding.trie import build_trie
from peso.lm.sequences import SequenceBuilder
from peso.lm.vocabulary import Vocabulary
from peso.types import DecodingNormaliser
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset

HISTORIES = [np.array([3, 7, 1]), np.array([5]), np.array([2, 9, 30, 31, 8, 6]), np.array([11, 4])]
EXCLUDED = [np.array([4, 6, 8]), np.array([38]), np.arange(0, 20), np.array([], dtype=np.int64)]
ALLOWED = np.arange(0, 40, 2)
NORMALISERS: tuple[DecodingNormaliser, ...] = ("level", "vocabulary", "trie")


def world() -> tuple[PreTrainedModel, SequenceBuilder, Vocabulary]:
    model, tokenizer = tiny_backbone()
    return model, *tiny_builder(tokenizer, tiny_dataset(), tiny_codes())


@torch.inference_mode()
def every_score(
    model: PreTrainedModel, vocabulary: Vocabulary, prompt: np.ndarray, normaliser: DecodingNormaliser
) -> np.ndarray:
    """log p of every allowed item, one plain forward pass each, by the normaliser's definition."""
    codes = tiny_codes()
    scores = []
    for item in ALLOWED:
        tokens = torch.from_numpy(np.concatenate([prompt, vocabulary.item_token_ids[item]]))
        logits = model(input_ids=tokens[None]).logits[0]
        total = 0.0
        for level, token_ids in enumerate(vocabulary.level_token_ids):
            at_level = logits[len(prompt) - 1 + level]
            siblings = ALLOWED[(codes[ALLOWED, :level] == codes[item, :level]).all(axis=1)]
            over = {
                "level": token_ids,
                "vocabulary": np.arange(len(at_level)),
                "trie": token_ids[np.unique(codes[siblings, level])],
            }[normaliser]
            mass = torch.logsumexp(at_level[torch.from_numpy(over)], 0)
            total += float(at_level[int(token_ids[codes[item, level]])] - mass)
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_each_normaliser_equals_its_definition(normaliser: DecodingNormaliser) -> None:
    model, builder, vocabulary = world()
    prompts = [builder.prompt(history) for history in HISTORIES]
    config = DecodingConfig(num_recommendations=20, beam_width=40, normaliser=normaliser)
    result = Recommender(model, vocabulary, config).search(prompts, build_trie(tiny_codes(), ALLOWED))
    for number, prompt in enumerate(prompts):
        truth = every_score(model, vocabulary, prompt, normaliser)
        assert result.items[number].tolist() == ALLOWED[np.argsort(-truth)].tolist()
        np.testing.assert_allclose(result.scores[number].numpy(), np.sort(truth)[::-1], atol=1e-5)
    assert torch.isneginf(result.bound).all()
    if normaliser == "trie":
        torch.testing.assert_close(result.scores.exp().sum(1), torch.ones(4))


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("width", [2, 3, 5, 8])
def test_nothing_left_out_beats_the_bound(normaliser: DecodingNormaliser, width: int) -> None:
    model, builder, vocabulary = world()
    prompts = [builder.prompt(history) for history in HISTORIES]
    config = DecodingConfig(num_recommendations=2, beam_width=width, normaliser=normaliser)
    result = Recommender(model, vocabulary, config).search(prompts, build_trie(tiny_codes(), ALLOWED), EXCLUDED)
    for number, prompt in enumerate(prompts):
        truth = every_score(model, vocabulary, prompt, normaliser)
        is_other = ~np.isin(ALLOWED, np.concatenate([result.items[number].numpy(), EXCLUDED[number]]))
        assert truth[is_other].max() <= result.bound[number] + 1e-5
        if result.is_certain[number]:
            kept = ALLOWED[~np.isin(ALLOWED, EXCLUDED[number])]
            best = kept[np.argsort(-truth[np.isin(ALLOWED, kept)])][:2]
            assert result.items[number].tolist() == best.tolist()


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("k", [1, 3, 25])
def test_exact_search_from_one_beam_finds_the_true_best(normaliser: DecodingNormaliser, k: int) -> None:
    model, builder, vocabulary = world()
    prompts = [builder.prompt(history) for history in HISTORIES]
    config = DecodingConfig(num_recommendations=k, beam_width=1, normaliser=normaliser)
    recommender = Recommender(model, vocabulary, config)
    result = recommender.search_exactly(prompts, build_trie(tiny_codes(), ALLOWED), EXCLUDED)
    assert result.is_certain.all()
    for number, prompt in enumerate(prompts):
        is_kept = ~np.isin(ALLOWED, EXCLUDED[number])
        truth = every_score(model, vocabulary, prompt, normaliser)[is_kept]
        expected = ALLOWED[is_kept][np.argsort(-truth)][:k].tolist()
        assert result.items[number].tolist() == expected + [-1] * (k - len(expected))


def test_exact_search_ends_where_items_tie_for_the_last_place() -> None:
    """Codes of equal rows, as untrained ones have, make all items as likely."""
    model, builder, vocabulary = world()
    head = model.get_output_embeddings().weight.data
    for ids in vocabulary.level_token_ids:
        head[torch.from_numpy(ids)] = head[int(ids[0])].clone()
    prompts = [builder.prompt(history) for history in HISTORIES]
    config = DecodingConfig(num_recommendations=5, beam_width=5, normaliser="level")
    result = Recommender(model, vocabulary, config).search_exactly(prompts, build_trie(tiny_codes(), ALLOWED))
    assert result.is_certain.all()
    torch.testing.assert_close(result.scores, result.bound[:, None].expand(-1, 5))
    assert all(len(set(row)) == 5 and set(row) <= set(ALLOWED.tolist()) for row in result.items.tolist())


@pytest.mark.parametrize("prefix_power", [0.0, 1.0])
def test_exact_search_with_a_memory_finds_the_best_of_both(prefix_power: float) -> None:
    """Against a search that keeps every prefix, so that there is nothing to be certain of."""
    model, builder, vocabulary = world()
    prompts = [builder.prompt(history) for history in HISTORIES]
    items = [np.array([8, 12]), np.array([6, 30, 38]), np.array([22]), np.array([], dtype=np.int64)]
    weights = [np.array([2.0, 0.5]), np.array([1.0, 3.0, 1.0]), np.array([4.0]), np.array([])]
    memory = RememberedItems(items, weights, (0.5, 1.0, 2.0), prefix_power)
    trie = build_trie(tiny_codes(), ALLOWED)
    narrow, wide = (
        Recommender(model, vocabulary, DecodingConfig(num_recommendations=3, beam_width=width)) for width in (3, 40)
    )
    result, truth = (
        narrow.search_exactly(prompts, trie, EXCLUDED, memory),
        wide.search(prompts, trie, EXCLUDED, memory),
    )
    assert result.is_certain.all()
    assert torch.equal(result.items, truth.items)
    torch.testing.assert_close(result.scores, truth.scores)
    assert not torch.equal(result.items, wide.search(prompts, trie, EXCLUDED).items)


def test_already_taken_items_take_up_no_beams() -> None:
    """As many beams as recommendations, and a list that leaves out most of the catalogue: still k results."""
    model, builder, vocabulary = world()
    excluded = [np.arange(0, 30)] * len(HISTORIES)
    config = DecodingConfig(num_recommendations=5, beam_width=5)
    prompts = [builder.prompt(history) for history in HISTORIES]
    items, _ = Recommender(model, vocabulary, config).recommend(prompts, build_trie(tiny_codes(), ALLOWED), excluded)
    for row in items:
        assert sorted(row.tolist()) == [30, 32, 34, 36, 38]


def test_a_restricted_trie_names_only_what_is_in_stock() -> None:
    model, builder, vocabulary = world()
    in_stock = np.array([2, 8, 20, 26])
    trie = build_trie(tiny_codes(), ALLOWED).restricted_to(in_stock)
    config = DecodingConfig(num_recommendations=4, beam_width=4)
    items, _ = Recommender(model, vocabulary, config).recommend([builder.prompt(HISTORIES[0])], trie)
    assert sorted(items[0].tolist()) == in_stock.tolist()


def _search(model: PreTrainedModel, vocabulary: Vocabulary) -> CodeScores:
    return CodeScores(model, [torch.from_numpy(ids).to(model.device) for ids in vocabulary.level_token_ids], "level")


def _inputs(builder: SequenceBuilder) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    prompts = [torch.from_numpy(builder.prompt(history)) for history in HISTORIES[:3]]
    excluded = [torch.from_numpy(items) for items in EXCLUDED[:3]]
    return (
        torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True),
        torch.tensor([len(prompt) for prompt in prompts]),
        torch.nn.utils.rnn.pad_sequence(excluded, batch_first=True, padding_value=-1),
    )


def _assert_equal(one: BeamResult, other: BeamResult) -> None:
    assert one.items.tolist() == other.items.tolist()
    torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.bound, other.bound, atol=1e-5, rtol=0)


def test_a_full_batch_of_a_graph_is_padded_by_no_user() -> None:
    for number in range(1, 100):
        users = floor_power_of_two(number)
        assert users <= number < 2 * users
        inputs = torch.ones(users, 16, dtype=torch.int64), torch.full((users,), 16), None
        assert len(padded_inputs(*inputs)[0]) == users


def test_inputs_padded_to_the_shape_of_a_graph_change_nothing() -> None:
    model, builder, vocabulary = world()
    trie, code_scores = build_trie(tiny_codes(), ALLOWED), _search(model, vocabulary)
    prompts, lengths, excluded = _inputs(builder)
    more_prompts, more_lengths, more_excluded = padded_inputs(prompts, lengths, excluded)
    assert (more_prompts.shape, more_excluded.shape) == ((4, 32), (4, 32))
    plain = beam_search(StockBody(model), prompts, lengths, trie, code_scores, 6, 4, excluded)
    padded = beam_search(StockBody(model), more_prompts, more_lengths, trie, code_scores, 6, 4, more_excluded)
    _assert_equal(plain, BeamResult(padded.items[:3], padded.scores[:3], padded.bound[:3]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs, which needs a CUDA device")
def test_a_replayed_graph_equals_the_search_on_the_cpu() -> None:
    model, builder, vocabulary = world()
    trie = build_trie(tiny_codes(), ALLOWED)
    prompts, lengths, excluded = _inputs(builder)
    expected = beam_search(StockBody(model), prompts, lengths, trie, _search(model, vocabulary), 6, 4, excluded)
    model.to("cuda")  # type: ignore[arg-type]
    graphed = GraphedSearch(model, trie.to("cuda"), _search(model, vocabulary), 6, 4)
    _assert_equal(graphed(prompts, lengths, excluded), expected)
    _assert_equal(graphed(prompts, lengths, excluded), expected)
