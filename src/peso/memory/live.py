"""Counts of neighbours that every new event updates at once, in microseconds."""

from collections.abc import Sequence

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.memory.neighbours import FloatArray, count_neighbours, summed


class LiveNeighbours:
    """As `Neighbours`, and open to what happens: equal to counting everything anew, with the new events as a block."""

    def __init__(
        self,
        dataset: Dataset,
        events: IntArray,
        distance_weights: Sequence[float],
        backward: float,
        decay: float,
        discount: float = 0.0,
    ) -> None:
        """Counts what is known so far; arguments as of `count_neighbours`."""
        self._counted = count_neighbours(dataset, events, distance_weights, backward, decay)
        self._num_taken = np.bincount(dataset.event_item[events], minlength=dataset.num_items).astype(np.float64)
        self._distance_weights, self._backward = distance_weights, backward
        self._decay, self._discount = decay, discount
        self._new: dict[int, dict[int, float]] = {}
        self._age = 1.0

    def observe(self, history: IntArray, item: int) -> None:
        """Learns from an event.

        Args:
            history: int64 [H], what its user had taken before, oldest first.
            item: what they took.
        """
        self._age = self._decay  # what was counted is of an earlier block from the first new event on
        self._num_taken[item] += 1
        for before, weight in zip(history[::-1].tolist(), self._distance_weights, strict=False):
            for source, other, added in ((before, item, weight), (item, before, self._backward * weight)):
                if added:
                    near = self._new.setdefault(source, {})
                    near[other] = near.get(other, 0.0) + added

    def near(self, history: IntArray, lag_weights: Sequence[float]) -> tuple[IntArray, FloatArray]:
        """See `Neighbours.near`."""
        items, weights = [], []
        for item, lag_weight in zip(history[::-1].tolist(), lag_weights, strict=False):
            factor = lag_weight * max(self._num_taken[item], 1.0) ** -self._discount
            start, end = self._counted.offsets[item], self._counted.offsets[item + 1]
            items.append(self._counted.items[start:end])
            weights.append(factor * self._age * self._counted.weights[start:end])
            new = self._new.get(item, {})
            items.append(np.fromiter(new, dtype=np.int64, count=len(new)))
            weights.append(factor * np.fromiter(new.values(), dtype=np.float64, count=len(new)))
        return summed(items, weights)
