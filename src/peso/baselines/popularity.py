"""The most popular items: of all time, or of the block."""

from typing import ClassVar

import numpy as np

from peso.baselines.base import Baseline
from peso.baselines.lists import padded
from peso.data.dataset import IntArray


class PopularSoFar(Baseline):
    """Everyone gets the most frequent items of all data so far."""

    name: ClassVar[str] = "popular"

    def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
        """See `Baseline.lists`."""
        return np.tile(padded(self.most_frequent(self.known_events, k, allowed), k), (len(targets), 1))


class PopularInBlock(Baseline):
    """Everyone gets the most frequent items of the block's training targets."""

    name: ClassVar[str] = "popular_in_block"

    def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
        """See `Baseline.lists`."""
        return np.tile(padded(self.most_frequent(self.block_events, k, allowed), k), (len(targets), 1))
