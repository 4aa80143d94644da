"""The memory alone: what stood near the last items most often."""

from typing import Any, ClassVar

import numpy as np

from peso.baselines.base import Baseline
from peso.baselines.lists import completed
from peso.config import MemoryConfig
from peso.data.dataset import IntArray
from peso.data.examples import has_repeats
from peso.memory.neighbours import count_as_configured, not_taken


class NeighbourCounts(Baseline):
    """Items by their weight in a memory, then the block's popular items, then those of all time."""

    name: ClassVar[str] = "neighbours"
    memory: ClassVar[MemoryConfig] = MemoryConfig()
    """How it counts: as models do by default."""

    @classmethod
    def config(cls) -> dict[str, Any]:
        """How it counts."""
        counted = {"lag_weights", "distance_weights", "backward", "decay", "discount"}
        return cls.memory.model_dump(mode="json", include=counted)

    def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
        """See `Baseline.lists`; ties go to the more popular item, and own items count where users take them again."""
        config, repeats = self.memory, has_repeats(self.dataset)
        neighbours = count_as_configured(self.dataset, self.known_events, config)
        popularity = np.bincount(self.dataset.event_item[self.known_events], minlength=self.dataset.num_items)
        popular, is_allowed = self.popular(k, allowed), self.is_allowed(allowed)
        starts = self.dataset.user_offsets[self.dataset.event_user[targets]]
        table = np.empty((len(targets), k), dtype=np.int64)
        for row, (start, target) in enumerate(zip(starts, targets, strict=True)):
            history = self.dataset.event_item[start:target]
            near, weights = neighbours.near(history, config.lag_weights)
            near, weights = (near, weights) if repeats else not_taken(near, weights, history)
            near, weights = near[is_allowed[near]], weights[is_allowed[near]]
            table[row] = completed(near[np.lexsort((near, -popularity[near], -weights))], popular, k)
        return table
