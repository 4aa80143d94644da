"""The memory beside a model: counts of what followed what, of everything the model may have trained on."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from peso.config import MemoryConfig
from peso.data.dataset import Dataset, IntArray
from peso.data.transitions import FloatArray, Transitions, count_transitions
from peso.decoding.recommend import RememberedItems


@dataclass(frozen=True, eq=False)
class SuccessorMemory:
    """Counts of successors, and how a history asks for them.

    Attributes:
        transitions: what followed what.
        config: lag weights and strength.
    """

    transitions: Transitions
    config: MemoryConfig

    @classmethod
    def of_events(cls, dataset: Dataset, events: IntArray, config: MemoryConfig) -> Self:
        """Counts some events, int64, ascending."""
        return cls(count_transitions(dataset, events, config.decay), config)

    def recall(self, histories: list[IntArray]) -> RememberedItems:
        """What is remembered for the moment after each history."""
        found = [self.transitions.following(history, self.config.lag_weights) for history in histories]
        return RememberedItems(
            [items for items, _ in found], [weights for _, weights in found], self.config.strength
        )  # fmt: skip

    def log_likelihoods(self, histories: list[IntArray], items: IntArray, by_model: FloatArray) -> FloatArray:
        """Of model and memory together; see `peso.decoding.memory`.

        Args:
            histories: per target.
            items: int64 [T], the targets' items.
            by_model: float64 [T], the model's log-likelihoods in nats.

        Returns:
            float64 [T], in nats.
        """
        remembered = self.recall(histories)
        own, total = np.zeros(len(items)), np.zeros(len(items))
        for row, (followers, weights) in enumerate(zip(remembered.items, remembered.weights, strict=True)):
            own[row], total[row] = weights[followers == items[row]].sum(), weights.sum()
        strength = self.config.strength
        mixed: FloatArray = np.log((own + strength * np.exp(by_model)) / (total + strength))
        return mixed
