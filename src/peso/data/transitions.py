"""Which items followed which, and how often: counts that every new event updates, without training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import Dataset, IntArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Transitions:
    """Weighted counts of pairs (item, the same user's next item).

    Attributes:
        offsets: int64 [N + 1]; item i was followed by `followers[offsets[i] : offsets[i + 1]]`.
        followers: int64 [P], ascending within an item.
        weights: float64 [P], positive.
    """

    offsets: IntArray
    followers: IntArray
    weights: FloatArray

    def following(self, history: IntArray, lag_weights: Sequence[float]) -> tuple[IntArray, FloatArray]:
        """What followed the last items of a history.

        Args:
            history: int64 [H], oldest first.
            lag_weights: of the last item, the one before it, and so on.

        Returns:
            Items, int64 [E], ascending, and their weights, float64 [E]: the sum over lags of lag weight times count.
        """
        items, weights = [], []
        for item, lag_weight in zip(history[::-1], lag_weights, strict=False):
            start, end = self.offsets[item], self.offsets[item + 1]
            items.append(self.followers[start:end])
            weights.append(lag_weight * self.weights[start:end])
        if not items:
            return np.empty(0, dtype=np.int64), np.empty(0)
        distinct, place = np.unique(np.concatenate(items), return_inverse=True)
        return distinct, np.bincount(place, np.concatenate(weights), len(distinct)).astype(np.float64)


def consecutive_events(dataset: Dataset, events: IntArray) -> IntArray:
    """The events whose predecessor, the same user's event before it, is among the given events as well.

    Args:
        dataset: the events.
        events: event indices, int64, ascending.

    Returns:
        int64 [P], ascending; event e follows e - 1.
    """
    first, second = events[:-1], events[1:]
    return second[(second == first + 1) & (dataset.event_user[first] == dataset.event_user[second])]


def count_transitions(dataset: Dataset, events: IntArray, decay: float) -> Transitions:
    """Counts over events; those of older blocks weigh less.

    Args:
        dataset: the events.
        events: event indices that may be known, int64, ascending.
        decay: in (0, 1]: the weight of a pair for each block between it and the newest event.
    """
    second = consecutive_events(dataset, events)
    age = dataset.event_block[events].max(initial=0) - dataset.event_block[second]
    keys = dataset.event_item[second - 1] * np.int64(dataset.num_items) + dataset.event_item[second]
    distinct, place = np.unique(keys, return_inverse=True)
    weights = np.bincount(place, decay ** age.astype(np.float64), len(distinct)).astype(np.float64)
    sources, followers = np.divmod(distinct, dataset.num_items)
    offsets = np.searchsorted(sources, np.arange(dataset.num_items + 1))
    return Transitions(offsets.astype(np.int64), followers, weights)
