"""Histories and targets as lines of token ids: what the model reads, and where its answers stand.

With a flat template (`sid`) every item of a row follows its history directly, so the row's trunk answers for all its
targets. With words between history and target (`instruct`) each target has a branch of its own (see
`peso.lm.attention`). Several rows may share a line.

Shapes: R rows, B lines of a batch, L tokens, T targets of a batch, M codes per item.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peso.data.dataset import Dataset, IntArray
from peso.lm.attention import Visibility
from peso.lm.device import moved
from peso.lm.rows import Rows
from peso.lm.templates import Template
from peso.lm.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows as tensors.

    Attributes:
        input_ids: int64 [B, L], padded on the right.
        position_ids: int64 [B, L], the position that each token would have if its target stood alone.
        visibility: who sees whom; None where plain causal attention says the same.
        answer_index: int64 [T, M], where in the flattened [B * L] hidden states each code is predicted; [T, M + 1]
            where answers have an end, which is the last.
        codes: int64 [T, M], the codes to predict, as numbers within their level.
        events: int64 [T], which event each target is.
    """

    input_ids: Tensor
    position_ids: Tensor
    visibility: Visibility | None
    answer_index: Tensor
    codes: Tensor
    events: IntArray

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        tables = (self.input_ids, self.position_ids, self.answer_index, self.codes)
        ids, positions, answers, codes = (moved(table, device) for table in tables)
        visibility = None if self.visibility is None else self.visibility.to(device)
        return Batch(ids, positions, visibility, answers, codes, self.events)


@dataclass(frozen=True, eq=False)
class _Written:
    """One row as tokens: its trunk, then its branches.

    Attributes:
        tokens: int64 [n].
        positions: int64 [n].
        branch: int64 [n], 0 in the trunk, then 1, 2, ...
        limit: int64 [n], how much of the trunk each token may see.
        answers: int64 [targets, M or M + 1], where each code and the end are predicted.
    """

    tokens: IntArray
    positions: IntArray
    branch: IntArray
    limit: IntArray
    answers: IntArray


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
        self._num_answers = vocabulary.num_levels
        separator = np.tile(np.asarray(template.separator, dtype=np.int64), (len(codes), 1))
        self._item_blocks = np.concatenate([separator, vocabulary.item_token_ids], axis=1)
        self._prefix = np.asarray(template.prefix, dtype=np.int64)
        self._suffix = np.asarray(template.suffix, dtype=np.int64)

    def with_end(self) -> "SequenceBuilder":
        """The same, but every answer has an end behind its codes; for templates that are not flat."""
        assert not self.template.is_flat, "the next item follows an answer of a flat template, not an end"
        ending = copy(self)
        ending._num_answers = self.vocabulary.num_levels + 1
        return ending

    def over(self, dataset: Dataset) -> "SequenceBuilder":
        """The same over other events of the same items."""
        other = copy(self)
        other.dataset = dataset
        return other

    def prompt(self, items: IntArray) -> IntArray:
        """Token ids of a history up to where the next item's first code is predicted.

        Args:
            items: int64 [n], item numbers, oldest first.
        """
        body = self._item_blocks[items].reshape(-1)[len(self.template.separator) if len(items) else 0 :]
        return np.concatenate([self._prefix, body, self._suffix])

    def row_lengths(self, rows: Rows) -> IntArray:
        """int64 [R]: tokens that each row writes."""
        block = self._item_blocks.shape[1]
        if self.template.is_flat:
            return len(self._prefix) + rows.num_items * block - 1
        history = rows.num_items - 1
        separators = np.where(history > 0, len(self.template.separator), 0)
        branches = rows.num_targets * (len(self._suffix) + self._num_answers - 1)
        return len(self._prefix) + history * block - separators + branches

    def batch(self, rows: Rows, line_tokens: int = 0) -> Batch:
        """Writes rows as token ids.

        Args:
            rows: what to write.
            line_tokens: rows share a line while they fit into this many tokens; a longer row has a line of its own,
                and so has every row if this is 0.
        """
        if self.template.is_flat and line_tokens == 0:
            return self._flat_batch(rows)
        lines = _share_lines(self.row_lengths(rows), line_tokens)
        written = [self._write(rows, number) for number in range(len(rows))]
        length = max(sum(len(written[number].tokens) for number in line) for line in lines)
        shape = (len(lines), length)
        input_ids = np.full(shape, self.vocabulary.pad_token_id, dtype=np.int64)
        positions, branch, limit = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        user = np.full(shape, -1, dtype=np.int64)
        answers: list[IntArray] = [np.empty((0, 0), dtype=np.int64)] * len(rows)
        for line, numbers in enumerate(lines):
            start = num_branches = 0
            for number in numbers:
                row = written[number]
                place = (line, slice(start, start + len(row.tokens)))
                input_ids[place], positions[place], user[place] = row.tokens, row.positions, number
                branch[place] = np.where(row.branch > 0, row.branch + num_branches, 0)
                limit[place] = row.limit + start
                answers[number] = row.answers + line * length + start
                num_branches += int(row.branch.max())
                start += len(row.tokens)
        is_causal = len(lines) == len(rows) and (self.template.is_flat or bool((rows.num_targets == 1).all()))
        tables = (torch.from_numpy(table) for table in (user, branch, limit))
        events = rows.targets
        return Batch(
            torch.from_numpy(input_ids),
            torch.from_numpy(positions),
            None if is_causal else Visibility(*tables),
            torch.from_numpy(np.concatenate(answers)),
            torch.from_numpy(self._codes[self.dataset.event_item[events]]),
            events,
        )

    def _flat_batch(self, rows: Rows) -> Batch:
        """What `batch` writes when every row is a trunk on a line of its own, without a loop over rows."""
        num_rows, num_levels, start = len(rows), self.vocabulary.num_levels, len(self._prefix)
        item_row = np.repeat(np.arange(num_rows), rows.num_items)
        place = np.arange(len(item_row)) - np.repeat(np.cumsum(rows.num_items) - rows.num_items, rows.num_items)
        event = np.repeat(rows.start, rows.num_items) + place
        width = start + int(rows.num_items.max()) * num_levels
        input_ids = np.full((num_rows, width), self.vocabulary.pad_token_id, dtype=np.int64)
        input_ids[:, :start] = self._prefix
        cells = input_ids.reshape(-1)
        first_cell = item_row * width + start + place * num_levels
        cells[first_cell[:, None] + np.arange(num_levels)] = self._item_blocks[self.dataset.event_item[event]]
        # A row's last token is an answer and is not read.
        cells[np.arange(num_rows) * width + start + rows.num_items * num_levels - 1] = self.vocabulary.pad_token_id
        is_target = event >= np.repeat(rows.first_target, rows.num_items)
        length = width - 1
        answers = item_row[is_target] * length + start + place[is_target] * num_levels - 1
        events = event[is_target]
        return Batch(
            torch.from_numpy(np.ascontiguousarray(input_ids[:, :length])),
            torch.arange(length).expand(num_rows, -1),
            None,
            torch.from_numpy(answers[:, None] + np.arange(num_levels)),
            torch.from_numpy(self._codes[self.dataset.event_item[events]]),
            events,
        )

    def _write(self, rows: Rows, number: int) -> _Written:
        start, first, end = (int(values[number]) for values in (rows.start, rows.first_target, rows.end))
        items, num_levels = self.dataset.event_item[start:end], self.vocabulary.num_levels
        levels, targets = np.arange(self._num_answers), np.arange(end - first)
        if self.template.is_flat:
            tokens = self.prompt(items)[:-1]
            count = np.arange(len(tokens))
            first_answer = len(self._prefix) + (first - start) * num_levels - 1
            answers = first_answer + num_levels * targets[:, None] + levels
            return _Written(tokens, count, np.zeros_like(count), count + 1, answers)
        suffix, separator = self._suffix, len(self.template.separator)
        block = self._item_blocks.shape[1]
        prompt = self.prompt(items[:-1])
        trunk = prompt[: len(prompt) - len(suffix)]
        codes = self.vocabulary.item_token_ids[items[first - start :], : self._num_answers - 1]
        branches = np.concatenate([np.tile(suffix, (len(targets), 1)), codes], axis=1)  # [targets, suffix + read codes]
        history = first - start + targets
        ends = len(self._prefix) + history * block - np.where(history > 0, separator, 0)
        width = branches.shape[1]
        count = np.arange(len(trunk))
        return _Written(
            np.concatenate([trunk, branches.reshape(-1)]),
            np.concatenate([count, (ends[:, None] + np.arange(width)).reshape(-1)]),
            np.concatenate([np.zeros_like(count), np.repeat(targets + 1, width)]),
            np.concatenate([count + 1, np.repeat(ends, width)]),
            len(trunk) + width * targets[:, None] + len(suffix) - 1 + levels,
        )


def _share_lines(lengths: IntArray, line_tokens: int) -> list[Sequence[int]]:
    """Rows of each line: the longest first, each into the first line with room for it."""
    if line_tokens == 0:
        return [[number] for number in range(len(lengths))]
    lines: list[list[int]] = []
    room: list[int] = []
    for number in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[number])
        line = next((line for line, free in enumerate(room) if free >= length), len(lines))
        if line == len(lines):
            lines.append([])
            room.append(max(line_tokens, length))
        lines[line].append(number)
        room[line] -= length
    return list(lines)
