"""The memory alone: what stood near the last items most often."""

from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from peso.baselines.base import Baseline
from peso.baselines.lists import completed
from peso.config import MemoryConfig
from peso.data.dataset import IntArray
from peso.data.examples import has_repeats, items_taken_before
from peso.memory.choice import chosen_counting, targets_to_choose_by
from peso.memory.neighbours import count_neighbours, not_taken
from peso.memory.weights import MemoryWeights


class NeighbourCounts(Baseline):
    """Items by their weight in a memory, then the block's popular items, then those of all time.

    What its settings leave open is chosen as beside a model, on the block's validation targets.
    """

    name: ClassVar[str] = "neighbours"
    memory: ClassVar[MemoryConfig] = MemoryConfig(content_weight=0)
    """How it counts: as models do by default."""

    @classmethod
    def config(cls) -> dict[str, Any]:
        """How it counts."""
        counted = {"lag_weights", "distance_weights", "backward", "decay", "discount"}
        return cls.memory.model_dump(mode="json", include=counted)

    def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
        """See `Baseline.lists`; ties go to the more popular item, and own items count where users take them again."""
        config, weights, repeats = self.memory, self.weights, has_repeats(self.dataset)
        neighbours = count_neighbours(
            self.dataset, self.known_events, weights.distance_weights, weights.backward, config.decay, config.discount
        )
        popularity = np.bincount(self.dataset.event_item[self.known_events], minlength=self.dataset.num_items)
        popular, is_allowed = self.popular(k, allowed), self.is_allowed(allowed)
        starts = self.dataset.user_offsets[self.dataset.event_user[targets]]
        table = np.empty((len(targets), k), dtype=np.int64)
        for row, (start, target) in enumerate(zip(starts, targets, strict=True)):
            history = self.dataset.event_item[start:target]
            near, counts = neighbours.near(history, weights.lag_weights)
            near, counts = (near, counts) if repeats else not_taken(near, counts, history)
            near, counts = near[is_allowed[near]], counts[is_allowed[near]]
            table[row] = completed(near[np.lexsort((near, -popularity[near], -counts))], popular, k)
        return table

    @cached_property
    def weights(self) -> MemoryWeights:
        """How it counts after the block."""
        targets = targets_to_choose_by(self.dataset, self.model_block)
        histories, items = items_taken_before(self.dataset, targets), self.dataset.event_item[targets]
        return chosen_counting(self.dataset, self.known_events, histories, items, self.memory)
