"""Which targets share a forward pass, as slices of the event table.

With many targets per row, a target sees all items of its row before it: at least its last `max_history` items (or all
there are), at most `max_history + max_targets - 1`. `one_target_per_row` gives each target a row with exactly its last
`max_history` items: the plain way, used for every evaluation.

Shapes: R rows.
"""

from dataclasses import dataclass

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.data.examples import history_starts


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

    @property
    def targets(self) -> IntArray:
        """int64 [T]: the events that the rows answer for, row after row."""
        ranges = [np.arange(first, end) for first, end in zip(self.first_target, self.end, strict=True)]
        return np.concatenate([np.empty(0, dtype=np.int64), *ranges])

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
