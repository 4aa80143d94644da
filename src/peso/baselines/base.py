"""The contract of a rival without a network: count what may be known, then list items for a history."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.data.examples import known_events, targets_of_block


class Baseline(ABC):
    """A rival for the model after one block; it may count exactly what that model may have trained on."""

    name: ClassVar[str]
    """Its name in results."""

    def __init__(self, dataset: Dataset, model_block: int, allowed: IntArray) -> None:
        """Counts.

        Args:
            dataset: the events.
            model_block: the last block to learn from: all events of earlier blocks and this block's training targets.
            allowed: int64, the items that may be listed.
        """
        self.dataset = dataset
        self.is_allowed = np.zeros(dataset.num_items, dtype=bool)
        self.is_allowed[allowed] = True
        self.block_events = targets_of_block(dataset, model_block, "train")
        self.known_events = known_events(dataset, model_block)

    @abstractmethod
    def lists(self, targets: IntArray, k: int) -> IntArray:
        """The k items to recommend just before each target event.

        Args:
            targets: event indices, int64 [T].
            k: list length.

        Returns:
            int64 [T, k], best first, no item twice; -1 where there are fewer than k items with any count.
        """

    def most_frequent(self, events: IntArray, k: int) -> IntArray:
        """The k most frequent allowed items among some events; ties go to the lower item number."""
        counts = np.bincount(self.dataset.event_item[events], minlength=self.dataset.num_items)
        counts[~self.is_allowed] = 0
        order = np.argsort(-counts, kind="stable")[:k]
        return order[counts[order] > 0]
