"""Beam search against brute force and against `transformers.generate` on the same model."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PrefixConstrainedLogitsProcessor,
    PreTrainedModel,
)

from peso.config import AdapterConfig, DecodingConfig
from peso.decoding.beam import beam_search
from peso.decoding.branches import StockBody
from peso.decoding.code_scores import CodeScores
from peso.decoding.recommend import Recommender
from peso.decoding.trie import build_trie
from peso.lm.adapters import attach_adapter, token_row_parameters
from peso.lm.backbone import body_of
from peso.lm.sequences import SequenceBuilder
from peso.lm.vocabulary import Vocabulary
from peso.types import TemplateName
from worlds import LEVEL_SIZES, tiny_backbone, tiny_builder, tiny_codes, tiny_dataset

HISTORIES = [np.array([3, 7, 1]), np.array([5]), np.array([2, 9, 30, 31, 8, 6]), np.array([], dtype=np.int64)]


def world(template: TemplateName = "sid", adapted: bool = False) -> tuple[PreTrainedModel, SequenceBuilder, Vocabulary]:
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, tiny_dataset(), tiny_codes(), template)
    if adapted:
        peft_model = attach_adapter(model, AdapterConfig(r=8, lora_alpha=16), vocabulary.all_token_ids, seed=0)
        with torch.no_grad():
            for name, parameter in peft_model.named_parameters():
                if parameter.requires_grad and "lora_B" in name:
                    parameter.normal_(0.0, 0.2)
            for _, parameter in token_row_parameters(peft_model):
                parameter.add_(0.1 * torch.randn_like(parameter))
        peft_model.eval()
    return model, builder, vocabulary


def search(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    prompts: Sequence[np.ndarray],
    allowed: np.ndarray,
    width: int,
    k: int,
    excluded: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    config = DecodingConfig(num_recommendations=k, beam_width=width, batch_tokens=60)
    return Recommender(model, vocabulary, config).recommend(prompts, build_trie(tiny_codes(), allowed), excluded)


@torch.inference_mode()
def brute_force(model: PreTrainedModel, vocabulary: Vocabulary, prompt: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """log p of every allowed item: one plain forward pass of the whole sequence per item, softmax per level."""
    codes = tiny_codes()
    scores = []
    for item in allowed:
        tokens = np.concatenate([prompt, vocabulary.item_token_ids[item]])
        logits = model(input_ids=torch.from_numpy(tokens)[None]).logits[0]
        total = 0.0
        for level, token_ids in enumerate(vocabulary.level_token_ids):
            at_level = logits[len(prompt) - 1 + level, torch.from_numpy(token_ids)]
            total += float(torch.log_softmax(at_level, 0)[codes[item, level]])
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("template", ["sid", "instruct"])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_wide_beam_equals_scoring_every_item(template: TemplateName, adapted: bool) -> None:
    model, builder, vocabulary = world(template, adapted)
    allowed = np.arange(0, 40, 2)
    prompts = [builder.prompt(history) for history in HISTORIES]
    items, scores = search(model, vocabulary, prompts, allowed, width=40, k=len(allowed))
    for number, prompt in enumerate(prompts):
        exact = brute_force(model, vocabulary, prompt, allowed)
        assert items[number].tolist() == allowed[np.argsort(-exact)].tolist()
        np.testing.assert_allclose(scores[number], np.sort(exact)[::-1], atol=1e-5)


@pytest.mark.parametrize("width", [10, 12, 25])
def test_every_beam_is_a_real_and_distinct_item(width: int) -> None:
    model, builder, vocabulary = world()
    allowed = np.array([1, 4, 6, 9, 11, 13, 17, 20, 22, 28, 31, 39])
    items, scores = search(model, vocabulary, [builder.prompt(h) for h in HISTORIES], allowed, width, k=10)
    for row in items:
        assert len(set(row.tolist())) == 10
        assert set(row.tolist()) <= set(allowed.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()


def test_left_out_items_make_room_for_the_next_best() -> None:
    model, builder, vocabulary = world()
    allowed = np.arange(0, 40, 2)
    prompts = [builder.prompt(history) for history in HISTORIES]
    excluded = [np.array([4, 6, 8]), np.array([38]), np.arange(0, 30), np.array([], dtype=np.int64)]
    items, scores = search(model, vocabulary, prompts, allowed, 40, 10, excluded)
    for number, prompt in enumerate(prompts):
        kept = allowed[~np.isin(allowed, excluded[number])]
        exact = brute_force(model, vocabulary, prompt, kept)
        expected = kept[np.argsort(-exact)][:10].tolist()
        assert items[number].tolist() == expected + [-1] * (10 - len(expected))
        np.testing.assert_allclose(scores[number, : len(expected)], np.sort(exact)[::-1][:10], atol=1e-5)


def test_a_short_catalogue_fills_up_with_nothing() -> None:
    model, builder, vocabulary = world()
    items, scores = search(model, vocabulary, [builder.prompt(HISTORIES[0])], np.array([3, 5]), width=10, k=10)
    assert sorted(items[0, :2].tolist()) == [3, 5]
    assert (items[0, 2:] == -1).all()
    assert np.isneginf(scores[0, 2:]).all()


def test_batching_and_padding_change_nothing() -> None:
    model, builder, vocabulary = world()
    prompts = [builder.prompt(history) for history in HISTORIES]
    together, scores = search(model, vocabulary, prompts, np.arange(40), 10, 10)
    for number, prompt in enumerate(prompts):
        alone, alone_scores = search(model, vocabulary, [prompt], np.arange(40), 10, 10)
        assert alone[0].tolist() == together[number].tolist()
        np.testing.assert_allclose(alone_scores[0], scores[number], atol=1e-5)


def test_equals_transformers_generate_with_the_same_trie() -> None:
    """The stock search renormalises nothing, so both run with the head's other rows at minus infinity."""
    model, builder, vocabulary = world()
    width, prompt = 6, builder.prompt(HISTORIES[2])
    allowed_items = np.arange(40)
    continuations: dict[tuple[int, ...], list[int]] = {}
    for item in allowed_items:
        tokens = vocabulary.item_token_ids[item].tolist()
        for depth in range(len(tokens)):
            continuations.setdefault(tuple(tokens[:depth]), []).append(tokens[depth])
    level_of_token = {int(t): level for level, ids in enumerate(vocabulary.level_token_ids) for t in ids}

    def allowed_tokens(batch: int, tokens: Tensor) -> list[int]:
        return continuations[tuple(tokens[len(prompt) :].tolist())]

    class LevelSoftmax:
        """Normalises over the codes of the level before the constraint, as our scores do."""

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            level = input_ids.shape[1] - len(prompt)
            ids = torch.tensor([token for token, its_level in level_of_token.items() if its_level == level])
            result = torch.full_like(scores, float("-inf"))
            result[:, ids] = torch.log_softmax(scores[:, ids], dim=1)
            return result

    output = model.generate(  # type: ignore[operator]
        torch.from_numpy(prompt)[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        generation_config=GenerationConfig(
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=len(LEVEL_SIZES),
            do_sample=False,
            length_penalty=0.0,
            pad_token_id=vocabulary.pad_token_id,
            return_dict_in_generate=True,
            output_scores=True,
        ),
        logits_processor=LogitsProcessorList(
            [LevelSoftmax(), PrefixConstrainedLogitsProcessor(allowed_tokens, num_beams=width)]
        ),
    )
    item_of_tokens = {tuple(vocabulary.item_token_ids[item].tolist()): int(item) for item in allowed_items}
    theirs = [item_of_tokens[tuple(row[len(prompt) :].tolist())] for row in output.sequences]
    ours, scores = search(model, vocabulary, [prompt], allowed_items, width, width)
    assert ours[0].tolist() == theirs
    np.testing.assert_allclose(scores[0], output.sequences_scores.numpy(), atol=1e-5)


def test_a_models_own_generation_config_does_not_leak_in() -> None:
    model, builder, vocabulary = world()
    prompts = [builder.prompt(HISTORIES[0])]
    before = search(model, vocabulary, prompts, np.arange(40), 10, 10)
    model.generation_config.update(do_sample=True, temperature=9.0, top_k=1, num_beams=1, max_length=2)
    after = search(model, vocabulary, prompts, np.arange(40), 10, 10)
    assert before[0].tolist() == after[0].tolist()
    assert before[1].tolist() == after[1].tolist()


def test_the_history_is_read_once() -> None:
    """Only the first of the M passes sees the history; later ones feed one code per beam."""
    model, builder, vocabulary = world()
    widths: list[int] = []
    body_of(model).register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    prompt = torch.from_numpy(builder.prompt(HISTORIES[2]))[None]
    code_scores = CodeScores(model, [torch.from_numpy(ids) for ids in vocabulary.level_token_ids], "level")
    trie = build_trie(tiny_codes(), np.arange(40))
    beam_search(
        StockBody(model), prompt, torch.tensor([prompt.shape[1]]), trie, code_scores, beam_width=4, num_results=4
    )
    assert widths == [prompt.shape[1], 4, 4]
