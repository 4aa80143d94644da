"""What followed the last item most often."""

from typing import ClassVar

import numpy as np

from peso.baselines.base import Baseline
from peso.baselines.lists import completed
from peso.data.dataset import IntArray
from peso.memory.neighbours import events_with_known_earlier


class Successor(Baseline):
    """The last item's most frequent successors, then the block's popular items, then those of all time."""

    name: ClassVar[str] = "successor"

    def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
        """See `Baseline.lists`."""
        popular = self.popular(k, allowed)
        is_first = targets == self.dataset.user_offsets[self.dataset.event_user[targets]]
        last_items = np.where(is_first, -1, self.dataset.event_item[targets - 1])
        distinct, place = np.unique(last_items, return_inverse=True)
        sources, followers = self._transitions(allowed)
        starts, ends = np.searchsorted(sources, distinct, "left"), np.searchsorted(sources, distinct, "right")
        table = np.empty((len(distinct), k), dtype=np.int64)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            table[row] = completed(followers[start:end], popular, k)
        return table[place]

    def _transitions(self, allowed: IntArray) -> tuple[IntArray, IntArray]:
        """Pairs (item, allowed follower), by item, then falling count, the follower's falling popularity, number."""
        second = events_with_known_earlier(self.dataset, self.known_events, distance=1)
        pairs = np.stack([self.dataset.event_item[second - 1], self.dataset.event_item[second]], axis=1)
        pairs, counts = np.unique(pairs[self.is_allowed(allowed)[pairs[:, 1]]], axis=0, return_counts=True)
        popularity = np.bincount(self.dataset.event_item[self.known_events], minlength=self.dataset.num_items)
        order = np.lexsort((pairs[:, 1], -popularity[pairs[:, 1]], -counts, pairs[:, 0]))
        return pairs[order, 0], pairs[order, 1]
