"""Which items stood near which in the users' sequences: counts that new events update without training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import Dataset, IntArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Weighted counts of pairs (item, an item near it in the same user's sequence).

    Attributes:
        offsets: int64 [N + 1]; the neighbours of item i are `items[offsets[i] : offsets[i + 1]]`.
        items: int64 [P], ascending within an item.
        weights: float64 [P], positive.
    """

    offsets: IntArray
    items: IntArray
    weights: FloatArray

    def near(self, history: IntArray, lag_weights: Sequence[float]) -> tuple[IntArray, FloatArray]:
        """The neighbours of the last items of a history.

        Args:
            history: int64 [H], oldest first.
            lag_weights: of the last item, the one before it, and so on.

        Returns:
            Items, int64 [E], ascending, and their weights, float64 [E]: the sum over lags of lag weight times count.
        """
        items, weights = [], []
        for item, lag_weight in zip(history[::-1], lag_weights, strict=False):
            start, end = self.offsets[item], self.offsets[item + 1]
            items.append(self.items[start:end])
            weights.append(lag_weight * self.weights[start:end])
        return summed(items, weights)


def summed(items: Sequence[IntArray], weights: Sequence[FloatArray]) -> tuple[IntArray, FloatArray]:
    """Several lists of items as one: distinct items, int64 [E], ascending, and the sums of their weights."""
    if not items:
        return np.empty(0, dtype=np.int64), np.empty(0)
    distinct, place = np.unique(np.concatenate(items), return_inverse=True)
    return distinct, np.bincount(place, np.concatenate(weights), len(distinct)).astype(np.float64)


def not_taken(items: IntArray, weights: FloatArray, history: IntArray) -> tuple[IntArray, FloatArray]:
    """What is left without the items of a history, which a user's own pairs vouch for.

    Args:
        items: int64 [E], ascending.
        weights: float64 [E].
        history: int64 [H].
    """
    places = np.searchsorted(items, history)
    inside = places < len(items)
    places, history = places[inside], history[inside]
    is_left = np.ones(len(items), dtype=bool)
    is_left[places[items[places] == history]] = False
    return items[is_left], weights[is_left]


def events_with_known_earlier(dataset: Dataset, events: IntArray, distance: int) -> IntArray:
    """The events whose user's event some places before them is among the given events as well.

    Args:
        dataset: the events.
        events: event indices, int64, ascending.
        distance: places, at least 1.

    Returns:
        int64 [P], ascending; event e and event e - distance are of one user, and both are given.
    """
    is_given = np.zeros(dataset.num_events, dtype=bool)
    is_given[events] = True
    late = events[events >= distance]
    is_pair = is_given[late - distance] & (dataset.event_user[late] == dataset.event_user[late - distance])
    return late[is_pair]


def count_neighbours(
    dataset: Dataset,
    events: IntArray,
    distance_weights: Sequence[float],
    backward: float,
    decay: float,
    discount: float = 0.0,
) -> Neighbours:
    """Counts over events; far pairs and old ones weigh less, and so do the neighbours of an item that many took.

    Args:
        dataset: the events.
        events: event indices that may be known, int64, ascending.
        distance_weights: of a pair of neighbouring events, of one with an event between, and so on.
        backward: weight of an item that came before, relative to one that came after.
        decay: in (0, 1]: the weight of a pair for each block between its later event and the newest event.
        discount: in [0, 1]: of an item that n events name, all neighbours weigh n to the power of minus this: 0 counts
            pairs, 1 about shares of what stood near it.
    """
    keys, weights = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    pairs = pairs_apart(dataset, events, len(distance_weights), decay)
    for distance_weight, (before, after, ages) in zip(distance_weights, pairs, strict=True):
        keys += [before * dataset.num_items + after, after * dataset.num_items + before]
        weights += [distance_weight * ages, backward * distance_weight * ages]
    distinct, place = np.unique(np.concatenate(keys), return_inverse=True)
    counts = np.bincount(place, np.concatenate(weights), len(distinct)).astype(np.float64)
    distinct, counts = distinct[counts > 0], counts[counts > 0]
    sources, items = np.divmod(distinct, dataset.num_items)
    offsets = np.searchsorted(sources, np.arange(dataset.num_items + 1))
    return Neighbours(offsets.astype(np.int64), items, counts * discounts(dataset, events, discount)[sources])


def pairs_apart(
    dataset: Dataset, events: IntArray, num_distances: int, decay: float
) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
    """Pairs of events of one user, both known: those next to each other, then those with one between, and so on.

    Yields:
        Per distance: the items that came before, int64 [P]; those that came after, int64 [P]; and how much the pairs
        weigh by age, float64 [P].
    """
    newest = dataset.event_block[events].max(initial=0)
    for distance in range(1, num_distances + 1):
        late = events_with_known_earlier(dataset, events, distance)
        before, after = dataset.event_item[late - distance].astype(np.int64), dataset.event_item[late].astype(np.int64)
        yield before, after, decay ** (newest - dataset.event_block[late]).astype(np.float64)


def discounts(dataset: Dataset, events: IntArray, discount: float) -> FloatArray:
    """What each item's neighbours are multiplied by, float64 [N]; infinite for items that no event names, or 1."""
    num_taken = np.bincount(dataset.event_item[events], minlength=dataset.num_items).astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(num_taken**-discount)
