"""Histories and targets as rows of token ids: what the model reads, and where its answers stand.

With a flat template (`sid`) a row holds a stretch of one user's items, and every target in the stretch is predicted
in the same pass. A target then sees all items of its row before it: at least its last `max_history` items (or all
there are), at most `max_history + max_targets - 1`. `one_target_per_row` gives each target a row with exactly its last
`max_history` items: the plain way, used for every evaluation and for templates with text after the history.

Shapes: R rows, B rows of a batch, L tokens, T targets of a batch, M codes per item.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peso.data.dataset import Dataset, IntArray
from peso.data.examples import history_starts
from peso.lm.templates import Template
from peso.lm.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Rows:
    """Slices of the event table. A row reads events start : end and answers for events first_target : end.

    Attributes:
        start: int64 [R].
        first_target: int64 [R].
        end: int64 [R].
    """

    start: IntArray
    first_target: IntArray
    end: IntArray

    def __len__(self) -> int:
        """Number of rows R."""
        return len(self.start)

    @property
    def num_targets(self) -> IntArray:
        """int64 [R]: targets in each row."""
        return self.end - self.first_target

    @property
    def num_items(self) -> IntArray:
        """int64 [R]: items in each row, targets included."""
        return self.end - self.start

    def take(self, index: IntArray) -> "Rows":
        """The rows at some positions."""
        return Rows(self.start[index], self.first_target[index], self.end[index])


def one_target_per_row(dataset: Dataset, targets: IntArray, max_history: int) -> Rows:
    """A row per target with exactly its last `max_history` items before it."""
    return Rows(history_starts(dataset, targets, max_history), targets, targets + 1)


def many_targets_per_row(dataset: Dataset, targets: IntArray, max_history: int, max_targets: int) -> Rows:
    """Rows that answer for up to `max_targets` consecutive targets of one user.

    Args:
        dataset: the events.
        targets: event indices, increasing; those of one user that follow each other without a gap share rows.
        max_history: items before the first target of a row, at most.
        max_targets: targets of a row, at most.
    """
    if len(targets) == 0:
        return Rows(targets, targets, targets)
    users = dataset.event_user[targets]
    run_starts = np.flatnonzero(np.r_[True, (np.diff(targets) != 1) | (users[1:] != users[:-1])])
    run_sizes = np.diff(np.r_[run_starts, len(targets)])
    within_run = np.arange(len(targets)) - np.repeat(run_starts, run_sizes)
    first = np.flatnonzero(within_run % max_targets == 0)
    sizes = np.diff(np.r_[first, len(targets)])
    first_target = targets[first]
    return Rows(history_starts(dataset, first_target, max_history), first_target, first_target + sizes)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as tensors.

    Attributes:
        input_ids: int64 [B, L], padded on the right; causal attention never lets an answer see padding.
        answer_index: int64 [T, M], where in the flattened [B * L] hidden states each code is predicted.
        codes: int64 [T, M], the codes to predict, as numbers within their level.
        events: int64 [T], which event each target is.
    """

    input_ids: Tensor
    answer_index: Tensor
    codes: Tensor
    events: IntArray


class SequenceBuilder:
    """Turns rows into batches for one data set, template and vocabulary."""

    def __init__(self, dataset: Dataset, codes: IntArray, vocabulary: Vocabulary, template: Template) -> None:
        """Keeps the tables that batches are gathered from.

        Args:
            dataset: the events.
            codes: int64 [N, M], each item's codes.
            vocabulary: each item's tokens.
            template: what stands around the items.
        """
        self.dataset = dataset
        self.template = template
        self.vocabulary = vocabulary
        self._codes = codes
        separator = np.tile(np.asarray(template.separator, dtype=np.int64), (len(codes), 1))
        self._item_blocks = np.concatenate([separator, vocabulary.item_token_ids], axis=1)
        self._prefix = np.asarray(template.prefix, dtype=np.int64)
        self._suffix = np.asarray(template.suffix, dtype=np.int64)

    def prompt(self, items: IntArray) -> IntArray:
        """Token ids of a history up to where the next item's first code is predicted.

        Args:
            items: int64 [n], item numbers, oldest first.
        """
        body = self._item_blocks[items].reshape(-1)[len(self.template.separator) if len(items) else 0 :]
        return np.concatenate([self._prefix, body, self._suffix])

    def row_lengths(self, rows: Rows) -> IntArray:
        """int64 [R]: tokens in each row."""
        block = self._item_blocks.shape[1]
        history = rows.num_items - (0 if self.template.is_flat else 1)
        separators = np.where(history > 0, len(self.template.separator), 0)
        answer = 0 if self.template.is_flat else len(self._suffix) + self.vocabulary.num_levels
        return len(self._prefix) + history * block - separators + answer - 1

    def batch(self, rows: Rows) -> Batch:
        """Writes rows as token ids.

        Args:
            rows: with a template that is not flat, each must hold one target.
        """
        num_levels = self.vocabulary.num_levels
        length = int(self.row_lengths(rows).max())
        input_ids = np.full((len(rows), length), self.vocabulary.pad_token_id, dtype=np.int64)
        answer_starts = []
        items = self.dataset.event_item
        for number, (start, first, end) in enumerate(zip(rows.start, rows.first_target, rows.end, strict=True)):
            tokens = self.prompt(items[start:first])
            answer_starts.append(number * length + len(tokens) - 1 + num_levels * np.arange(end - first))
            answers = self.vocabulary.item_token_ids[items[first:end]].reshape(-1)[:-1]
            input_ids[number, : len(tokens)] = tokens
            input_ids[number, len(tokens) : len(tokens) + len(answers)] = answers
        events = np.concatenate([np.arange(f, e) for f, e in zip(rows.first_target, rows.end, strict=True)])
        answer_index = np.concatenate(answer_starts)[:, None] + np.arange(num_levels)
        return Batch(
            torch.from_numpy(input_ids),
            torch.from_numpy(answer_index),
            torch.from_numpy(self._codes[items[events]]),
            events,
        )


_BATCHES_PER_POOL = 16


def batches_of_similar_length(lengths: IntArray, weights: IntArray, batch_weight: int, seed: int) -> list[IntArray]:
    """Random batches with little padding: shuffle, sort by length inside pools of 16 batches, cut, shuffle.

    Args:
        lengths: int64 [R], tokens of each row.
        weights: int64 [R], targets of each row.
        batch_weight: targets per batch; a batch closes with the row that reaches it.
        seed: decides the order.

    Returns:
        Row numbers of each batch; together every row once.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    pool = (np.cumsum(weights[order]) - 1) // (batch_weight * _BATCHES_PER_POOL)
    order = order[np.lexsort((lengths[order], pool))]
    batch_number = (np.cumsum(weights[order]) - weights[order]) // batch_weight
    batches = np.split(order, np.flatnonzero(np.diff(batch_number)) + 1)
    return [batches[number] for number in generator.permutation(len(batches))]
