"""Shared forward passes: the same losses and gradients as one example per target, and no leaks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peso.config import AdapterConfig
from peso.data.dataset import Dataset
from peso.data.examples import targets_of_block
from peso.lm.adapters import attach_adapter
from peso.lm.attention import Visibility
from peso.lm.device import make_ready
from peso.lm.likelihood import CodeLikelihood, hidden_states
from peso.lm.quick_stack import is_written_out
from peso.lm.rows import Rows, many_targets_per_row, one_target_per_row
from peso.lm.vocabulary import build_vocabulary
from peso.types import Normaliser, TemplateName
from worlds import LEVEL_SIZES, tiny_backbone, tiny_builder, tiny_codes, tiny_dataset

BLOCK = 128
"""Queries, and keys, that FlexAttention computes together or not at all."""


def users(histories: list[list[int]]) -> Dataset:
    """One block of given histories."""
    lengths = [len(history) for history in histories]
    names = [str(number) for number in range(len(histories))]
    ids = [str(number) for number in range(40)]
    items, owners = np.concatenate(histories).astype(np.int64), np.repeat(np.arange(len(lengths)), lengths)
    return Dataset(names, ids, [""] * 40, owners, items, np.zeros(len(items), dtype=np.int64), 1)


def trained_model() -> tuple[PeftModel, PreTrainedModel, PreTrainedTokenizerBase]:
    """What an update trains: the backbone with its stack written out, and an adapter that does something."""
    model, tokenizer = tiny_backbone()
    make_ready(model)
    tokens = build_vocabulary(tokenizer, tiny_codes(), LEVEL_SIZES).all_token_ids
    peft = attach_adapter(model, AdapterConfig(r=3, lora_alpha=6), tokens, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return peft, model, tokenizer


def losses_and_gradient(
    dataset: Dataset, template: TemplateName, rows: Rows, line_tokens: int, normaliser: Normaliser
) -> tuple[Tensor, Tensor]:
    """Every target's loss, by its event, and the gradient of their mean in all that trains."""
    peft, model, tokenizer = trained_model()
    builder, vocabulary = tiny_builder(tokenizer, dataset, tiny_codes(), template)
    batch = builder.batch(rows, line_tokens).to(model.device)
    losses = CodeLikelihood(vocabulary, normaliser).negative_log_likelihood(model, batch)
    losses.mean().backward()
    gradients = [parameter.grad.flatten().cpu() for parameter in peft.parameters() if parameter.grad is not None]
    return losses.detach().cpu()[np.argsort(batch.events)], torch.cat(gradients)


def alone(rows: Rows) -> Rows:
    """Every target of some rows in a row of its own, reading what it sees in the shared one."""
    return Rows(rows.start.repeat(rows.num_targets), rows.targets, rows.targets + 1)


histories = st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=9), min_size=1, max_size=5)
templates = st.sampled_from(["sid", "instruct"])


@settings(max_examples=25, deadline=None)
@given(
    histories, templates, st.integers(1, 5), st.integers(1, 10), st.sampled_from([0, 60, 200]),
    st.sampled_from(["level", "vocabulary"]),
)  # fmt: skip
def test_shared_passes_equal_one_example_per_target(
    items: list[list[int]], template: TemplateName, targets_per_row: int, window: int, line_tokens: int,
    normaliser: Normaliser,
) -> None:  # fmt: skip
    """Losses to 1e-5 of themselves, the gradient to 1e-5 of its largest entry."""
    dataset = users(items)
    targets = np.arange(len(dataset.event_item))
    shared = many_targets_per_row(dataset, targets, window, targets_per_row)
    ours, our_gradient = losses_and_gradient(dataset, template, shared, line_tokens, normaliser)
    plain, plain_gradient = losses_and_gradient(dataset, template, alone(shared), 0, normaliser)
    torch.testing.assert_close(ours, plain, atol=0, rtol=1e-5)
    torch.testing.assert_close(our_gradient, plain_gradient, atol=1e-5 * float(plain_gradient.abs().max()), rtol=0)


@settings(max_examples=25, deadline=None)
@given(histories, st.integers(1, 5), st.integers(1, 10))
def test_a_shared_row_shows_a_target_its_window_or_a_little_more(
    items: list[list[int]], targets_per_row: int, window: int
) -> None:
    dataset = users(items)
    targets = np.arange(len(dataset.event_item))
    shared = alone(many_targets_per_row(dataset, targets, window, targets_per_row))
    exact = one_target_per_row(dataset, targets, window)
    assert np.array_equal(shared.targets, exact.targets)
    assert (shared.start <= exact.start).all() and (shared.start > exact.start - targets_per_row).all()
    assert np.array_equal(dataset.event_user[shared.start], dataset.event_user[exact.start])


@pytest.mark.parametrize("template", ["sid", "instruct"])
@pytest.mark.parametrize("written_out", [False, True])
def test_another_user_of_the_line_changes_no_bit(template: TemplateName, written_out: bool) -> None:
    """Neither of the others' logits nor of their losses: on the library's own layers, and as they are trained."""
    model: PreTrainedModel
    model, tokenizer = trained_model()[1:] if written_out else tiny_backbone()
    assert is_written_out(model, torch.tensor([[1, 2]])) == written_out
    lines = []
    for first in ([1, 2, 3, 4], [9, 8, 7, 30]):
        dataset = users([first, [5, 6, 7, 11, 13], [20, 21, 22, 23]])
        builder, vocabulary = tiny_builder(tokenizer, dataset, tiny_codes(), template)
        rows = many_targets_per_row(dataset, np.arange(len(dataset.event_item)), 100, 20)
        batch = builder.batch(rows, line_tokens=1000).to(model.device)
        assert len(batch.input_ids) == 1
        with torch.no_grad():
            logits = model.get_output_embeddings()(hidden_states(model, batch)[0])
            losses = CodeLikelihood(vocabulary, "level").negative_log_likelihood(model, batch)
        assert batch.visibility is not None
        lines.append((logits, losses[np.argsort(batch.events)], batch.visibility.user[0]))
    (before, losses_before, owner), (after, losses_after, _) = lines
    assert torch.equal(before[owner != 0], after[owner != 0])
    assert not torch.equal(before[owner == 0], after[owner == 0])
    assert torch.equal(losses_before[4:], losses_after[4:]) and not torch.equal(losses_before[:4], losses_after[:4])


def of_long_lines(template: TemplateName) -> Visibility:
    """Two lines of many users, each longer than three of FlexAttention's blocks."""
    generator = np.random.default_rng(0)
    dataset = users([generator.integers(0, 40, length).tolist() for length in generator.integers(3, 12, 40)])
    builder, _ = tiny_builder(tiny_backbone()[1], dataset, tiny_codes(), template)
    rows = many_targets_per_row(dataset, np.arange(len(dataset.event_item)), 100, 20)
    visibility = builder.batch(rows, line_tokens=500 if template == "sid" else 1000).visibility
    assert visibility is not None
    assert len(visibility.user) > 1 and visibility.user.shape[1] > 3 * BLOCK
    return visibility


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("template", ["sid", "instruct"])
def test_flex_attention_reads_the_mask_as_scaled_dot_products_do(template: TemplateName) -> None:
    """Forward, uncompiled: on a CPU it knows no way back."""
    visibility = of_long_lines(template)
    lines, length = visibility.user.shape
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(lines, 2, length, 8, generator=generator) for _ in range(3))
    ours = flex_attention(query, key, value, block_mask=visibility.block_mask())
    theirs = scaled_dot_product_attention(query, key, value, visibility.dense_mask(torch.float32))
    is_real = (visibility.user >= 0)[:, None, :, None].expand_as(theirs)
    torch.testing.assert_close(ours[is_real], theirs[is_real], rtol=1e-4, atol=1e-5)
    causal = scaled_dot_product_attention(query, key, value, is_causal=True)
    assert not torch.allclose(ours[is_real], causal[is_real])


def test_every_row_is_in_one_line_and_fits() -> None:
    dataset = tiny_dataset(20, 60, 4)
    _, tokenizer = tiny_backbone()
    builder, _ = tiny_builder(tokenizer, dataset, tiny_codes(60), "instruct")
    rows = many_targets_per_row(dataset, targets_of_block(dataset, 2, "train"), 5, 3)
    batch = builder.batch(rows, line_tokens=120)
    assert isinstance(batch.visibility, Visibility)
    owners = batch.visibility.user
    assert sorted(set(owners[owners >= 0].tolist())) == list(range(len(rows)))
    assert [(owners == number).sum().item() for number in range(len(rows))] == builder.row_lengths(rows).tolist()
    assert len(owners) < len(rows)
    assert owners.shape[1] <= max(120, builder.row_lengths(rows).max())


@pytest.mark.parametrize("template", ["sid", "instruct"])
def test_blocks_are_left_out_where_nobody_sees_anybody(template: TemplateName) -> None:
    visibility = of_long_lines(template)
    lines, length = visibility.user.shape
    seen = torch.zeros(lines, -(-length // BLOCK) * BLOCK, -(-length // BLOCK) * BLOCK, dtype=torch.bool)
    seen[:, :length, :length] = visibility.dense_mask(torch.float32)[:, 0] == 0
    blocks = seen.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).any(4).any(2)
    computed = visibility.block_mask().to_dense()[:, 0].bool()
    assert torch.equal(computed, blocks)
    assert blocks.sum() < lines * len(blocks[0]) * (len(blocks[0]) + 1) // 2, "causality alone would leave as many out"
