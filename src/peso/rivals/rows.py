"""Training rows of a sequential network: a stretch of one user's events, with many targets each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import Dataset, IntArray


@dataclass(frozen=True, eq=False)
class Rows:
    """Stretches of consecutive events; position i of a row reads event `starts + i` and may predict the one after it.

    Attributes:
        starts: int64 [R], each row's first event.
        items: int64 [R, L], what each position reads; 0 behind a row's end.
        labels: int64 [R, L], the next event's item where that is a target of this row, -1 elsewhere.
    """

    starts: IntArray
    items: IntArray
    labels: IntArray


def training_rows(dataset: Dataset, targets: IntArray, max_history: int) -> Rows:
    """Covers every target that has a history once, in as few rows as leave it at least half of its last items.

    Args:
        dataset: the events.
        targets: event indices, int64, ascending.
        max_history: length of a row, L. A target sees between half of it and all of it, or its whole history.
    """
    first_events = dataset.user_offsets[dataset.event_user[targets]]
    with_history = targets > first_events
    targets, first_events = targets[with_history], first_events[with_history]
    starts: list[int] = []
    row_of, end = np.empty(len(targets), dtype=np.int64), -1
    for number, (target, first_event) in enumerate(zip(targets.tolist(), first_events.tolist(), strict=True)):
        if target > end or first_event > starts[-1]:
            starts.append(max(first_event, target - max_history // 2 - 1))
            end = starts[-1] + max_history
        row_of[number] = len(starts) - 1
    rows = np.array(starts, dtype=np.int64)
    labels = np.full((len(rows), max_history), -1, dtype=np.int64)
    labels[row_of, targets - rows[row_of] - 1] = dataset.event_item[targets]
    # Behind its last label a row reads nothing.
    lengths = max_history - np.argmax(labels[:, ::-1] >= 0, axis=1)
    places = rows[:, None] + np.arange(max_history)
    is_read = np.arange(max_history) < lengths[:, None]
    items = np.where(is_read, dataset.event_item[np.where(is_read, places, 0)], 0)
    return Rows(rows, items, labels)


def histories(dataset: Dataset, targets: IntArray, max_history: int) -> tuple[IntArray, IntArray]:
    """The last items before each target, from the left.

    Args:
        dataset: the events.
        targets: event indices, int64 [T].
        max_history: L.

    Returns:
        Items, int64 [T, L], 0 behind a history's end, and lengths, int64 [T].
    """
    starts = np.maximum(dataset.user_offsets[dataset.event_user[targets]], targets - max_history)
    lengths = targets - starts
    is_read: NDArray[np.bool_] = np.arange(max_history) < lengths[:, None]
    places = np.where(is_read, starts[:, None] + np.arange(max_history), 0)
    return np.where(is_read, dataset.event_item[places], 0), lengths
