"""What shares a step and how it is computed changes the cost of a gradient, not the gradient."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import peso.lm.likelihood as likelihood_room
from peso.config import AdapterConfig, TrainingConfig
from peso.data.examples import targets_of_block
from peso.lm.adapters import attach_adapter
from peso.lm.batching import cut_by_length, split_by_weight
from peso.lm.likelihood import CodeLikelihood
from peso.lm.rows import many_targets_per_row
from peso.training.base import adapter_parts
from peso.training.stage import Stage
from peso.training.steps import add_gradient
from peso.types import Normaliser
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset


def gradient(normaliser: Normaliser = "level", tokens_of_a_pass: int = 0, **options: Any) -> tuple[float, Tensor]:
    dataset = tiny_dataset()
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, dataset, tiny_codes(), "instruct")
    parts = adapter_parts(attach_adapter(model, AdapterConfig(r=8, lora_alpha=16), vocabulary.all_token_ids, seed=0))
    rows = many_targets_per_row(dataset, targets_of_block(dataset, 0, "train"), 5, 3)
    stage = Stage(
        name="test", key="", block=0, parts=parts, builder=builder, train_rows=rows, valid_rows=rows, epochs=1,
        learning_rates=dict.fromkeys(parts, 1e-3), batch_targets=256, weight_decay=0.0,
        training=TrainingConfig(**options), seed=0,
        tokens_of_a_pass=tokens_of_a_pass,
    )  # fmt: skip
    if options.get("gradient_checkpointing"):
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    loss = add_gradient(model, CodeLikelihood(vocabulary, normaliser), stage, np.arange(len(rows)))
    return float(loss), torch.cat([part.gradient for part in parts.values()])


@pytest.mark.parametrize(
    "options",
    [
        {"passes_per_step": 3},
        {"gradient_checkpointing": True},
        {"line_tokens": 200},
        {"tokens_of_a_pass": 1},
        {"tokens_of_a_pass": 20, "passes_per_step": 2},
    ],
)
@pytest.mark.parametrize("normaliser", ["level", "vocabulary"])
def test_the_gradient_stays(options: dict[str, Any], normaliser: Normaliser) -> None:
    loss, plain = gradient(normaliser)
    other_loss, other = gradient(normaliser, **options)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(other, plain, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("normaliser", ["level", "vocabulary"])
def test_logits_in_pieces_give_the_same_gradient(normaliser: Normaliser, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plain = gradient(normaliser)
    monkeypatch.setattr(likelihood_room, "_LOGITS_AT_ONCE", 40)
    _, pieces = gradient(normaliser)
    torch.testing.assert_close(pieces, plain, atol=1e-6, rtol=1e-4)


def test_bfloat16_is_near_and_accumulates_in_float32() -> None:
    _, plain = gradient()
    _, rounded = gradient(precision="bfloat16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, plain)
    assert torch.cosine_similarity(rounded, plain, dim=0) > 0.99


def test_batches_are_cut_where_padding_costs_more_than_a_pass() -> None:
    lengths = np.array([12, 160, 12, 100, 12, 16])
    assert [lengths[piece].tolist() for piece in cut_by_length(lengths, 50)] == [[12, 12, 12, 16], [100], [160]]
    assert [lengths[piece].tolist() for piece in cut_by_length(lengths, 80)] == [[12, 12, 12, 16], [100, 160]]
    assert [piece.tolist() for piece in cut_by_length(lengths, 0)] == [[0, 1, 2, 3, 4, 5]]
    assert [piece.tolist() for piece in cut_by_length(lengths[:1], 1)] == [[0]]


@given(st.lists(st.integers(4, 160), min_size=1, max_size=40), st.integers(1, 400))
def test_cuts_hold_every_row_once_and_never_cost_more(lengths: list[int], tokens_of_a_pass: int) -> None:
    rows = np.array(lengths)
    pieces = cut_by_length(rows, tokens_of_a_pass)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(rows)))
    cost = sum(int(rows[piece].max()) * len(piece) + tokens_of_a_pass for piece in pieces)
    assert cost <= int(rows.max()) * len(rows) + tokens_of_a_pass


def test_pieces_of_equal_weight_hold_every_row_once() -> None:
    weights = np.array([5, 1, 1, 1, 4, 4, 1, 1])
    pieces = split_by_weight(weights, 3)
    assert np.concatenate(pieces).tolist() == list(range(8))
    assert [int(weights[piece].sum()) for piece in pieces] == [6, 6, 6]
    assert len(split_by_weight(weights[:2], 5)) == 2
