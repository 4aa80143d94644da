"""Shared forward passes: the same losses and gradients as one example per target, and no leaks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from peso.data.dataset import Dataset
from peso.data.examples import targets_of_block
from peso.lm.attention import Visibility
from peso.lm.likelihood import CodeLikelihood, hidden_states
from peso.lm.rows import Rows, many_targets_per_row, one_target_per_row
from peso.types import TemplateName
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset


def users(histories: list[list[int]]) -> Dataset:
    """One block of given histories."""
    lengths = [len(history) for history in histories]
    names = [str(number) for number in range(len(histories))]
    ids = [str(number) for number in range(40)]
    items, owners = np.concatenate(histories).astype(np.int64), np.repeat(np.arange(len(lengths)), lengths)
    return Dataset(names, ids, [""] * 40, owners, items, np.zeros(len(items), dtype=np.int64), 1)


def losses_and_gradient(dataset: Dataset, template: TemplateName, rows: Rows, line_tokens: int) -> tuple[Tensor, ...]:
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, dataset, tiny_codes(), template)
    batch = builder.batch(rows, line_tokens)
    losses = CodeLikelihood(vocabulary, "level").negative_log_likelihood(model, batch)
    losses.mean().backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return losses.detach()[np.argsort(batch.events)], torch.cat(gradients)


histories = st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=9), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(histories, st.sampled_from(["sid", "instruct"]), st.integers(1, 5), st.sampled_from([0, 60, 200]))
def test_shared_passes_equal_one_example_per_target(
    items: list[list[int]], template: TemplateName, targets_per_row: int, line_tokens: int
) -> None:
    dataset = users(items)
    targets = np.arange(len(dataset.event_item))
    shared = many_targets_per_row(dataset, targets, 100, targets_per_row)
    ours = losses_and_gradient(dataset, template, shared, line_tokens)
    plain = losses_and_gradient(dataset, template, one_target_per_row(dataset, targets, 100), 0)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("template", ["sid", "instruct"])
def test_another_user_of_the_line_changes_no_bit(template: TemplateName) -> None:
    model, tokenizer = tiny_backbone()
    lines = []
    for first in ([1, 2, 3, 4], [9, 8, 7, 30]):
        dataset = users([first, [5, 6, 7, 11, 13], [20, 21, 22, 23]])
        builder, _ = tiny_builder(tokenizer, dataset, tiny_codes(), template)
        rows = many_targets_per_row(dataset, np.arange(len(dataset.event_item)), 100, 20)
        batch = builder.batch(rows, line_tokens=1000)
        assert len(batch.input_ids) == 1
        with torch.no_grad():
            states = hidden_states(model, batch)[0]
        assert batch.visibility is not None
        lines.append((states, batch.visibility.user[0]))
    (before, owner), (after, _) = lines
    assert torch.equal(before[owner != 0], after[owner != 0])
    assert not torch.equal(before[owner == 0], after[owner == 0])


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
def test_the_mask_in_blocks_is_the_dense_one(template: TemplateName) -> None:
    dataset = users([[1, 2, 3, 4], [5, 6, 7, 11, 13], [20, 21, 22, 23]])
    _, tokenizer = tiny_backbone()
    builder, _ = tiny_builder(tokenizer, dataset, tiny_codes(), template)
    batch = builder.batch(many_targets_per_row(dataset, np.arange(len(dataset.event_item)), 100, 20), line_tokens=60)
    assert batch.visibility is not None
    mask = batch.visibility.block_mask()
    line, query, key = (torch.arange(size) for size in (*batch.input_ids.shape, batch.input_ids.shape[1]))
    index = torch.zeros((), dtype=torch.int64)
    seen = mask.mask_mod(line[:, None, None], index, query[:, None], key[None, :])
    dense = batch.visibility.dense_mask(torch.float32)[:, 0]
    assert torch.equal(seen, dense == 0)
