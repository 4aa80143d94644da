"""The contract of a rival: learn what may be known after a block, then list items for a history."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import Dataset, IntArray
from peso.data.examples import known_events, targets_of_block


class Baseline(ABC):
    """A rival for the model after one block; it may learn exactly from what that model may have trained on."""

    name: ClassVar[str]
    """Its name in results."""

    def __init__(self, dataset: Dataset, model_block: int, previous: Self | None = None) -> None:
        """Learns.

        Args:
            dataset: the events.
            model_block: the last block to learn from: all events of earlier blocks and this block's training targets.
            previous: the same rival after the block before, for those that carry something on; None for block 0.
        """
        self.dataset = dataset
        self.model_block = model_block
        self.block_events = targets_of_block(dataset, model_block, "train")
        self.known_events = known_events(dataset, model_block)

    @classmethod
    def config(cls) -> dict[str, Any]:
        """The settings that decide its lists, for the record; a result of other settings is measured anew."""
        return {}

    @abstractmethod
    def lists(self, targets: IntArray, k: int, allowed: IntArray) -> IntArray:
        """The k items to recommend just before each target event.

        Args:
            targets: event indices, int64 [T].
            k: list length.
            allowed: int64, the items that may be listed.

        Returns:
            int64 [T, k], best first, no item twice; -1 where there are fewer than k items to name.
        """

    def is_allowed(self, allowed: IntArray) -> NDArray[np.bool_]:
        """The allowed items as a mask, bool [N]."""
        mask = np.zeros(self.dataset.num_items, dtype=bool)
        mask[allowed] = True
        return mask

    def most_frequent(self, events: IntArray, k: int, allowed: IntArray) -> IntArray:
        """The k most frequent allowed items among some events; ties go to the lower item number."""
        counts = np.bincount(self.dataset.event_item[events], minlength=self.dataset.num_items)
        counts[~self.is_allowed(allowed)] = 0
        order = np.argsort(-counts, kind="stable")[:k]
        return order[counts[order] > 0]

    def popular(self, k: int, allowed: IntArray) -> IntArray:
        """What to name where nothing better is known: the block's most frequent items, then those of all time.

        Returns:
            int64, at least k distinct items where so many have any count; some occur twice.
        """
        return np.concatenate(
            [self.most_frequent(events, k, allowed) for events in (self.block_events, self.known_events)]
        )
