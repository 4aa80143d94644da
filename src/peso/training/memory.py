"""The memory beside a model: what stood near what in everything the model may have trained on, and what is alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from peso.config import MemoryConfig
from peso.data.dataset import Dataset, IntArray
from peso.data.examples import has_repeats
from peso.decoding.recommend import RememberedItems
from peso.memory.choice import CONTENT, chosen_counting, chosen_weights
from peso.memory.evidence import gather_evidence
from peso.memory.live import LiveNeighbours
from peso.memory.mixture import mixed_log_probabilities
from peso.memory.neighbours import FloatArray, Neighbours, count_neighbours, not_taken, summed
from peso.memory.weights import MemoryWeights, usual_weights

Counter = Callable[[Dataset, IntArray, Sequence[float], float, float, float], Neighbours | LiveNeighbours]
"""Counts events once (`count_neighbours`), or once and then each new one (`LiveNeighbours`)."""


@dataclass(frozen=True, eq=False)
class NeighbourMemory:
    """Counts of neighbours and items of like content, and how a history asks for them.

    Attributes:
        neighbours: what stood near what.
        similar: what is like what, with weights up to 1; None where items have no vectors.
        codes: int64 [N, M], the items' codes.
        weights: how it counts.
        prefix_power: rho; see `peso.decoding.memory`.
        has_repeats: whether users take items again; otherwise nobody is reminded of what he took.
    """

    neighbours: Neighbours | LiveNeighbours
    similar: Neighbours | None
    codes: IntArray
    weights: MemoryWeights
    prefix_power: float
    has_repeats: bool

    def near(self, history: IntArray) -> tuple[IntArray, FloatArray]:
        """What is remembered for the moment after a history: items, int64 [E], ascending, and weights, float64 [E]."""
        lag_weights, content_weight = self.weights.lag_weights, self.weights.content_weight
        items, weights = self.neighbours.near(history, lag_weights)
        if self.similar is not None and content_weight > 0:
            alike, of_alike = self.similar.near(history, lag_weights)
            items, weights = summed([items, alike], [weights, content_weight * of_alike])
        return (items, weights) if self.has_repeats else not_taken(items, weights, history)

    def observe(self, history: IntArray, item: int) -> None:
        """Learns from an event at once; of a memory that goes on counting.

        Args:
            history: int64 [H], what its user had taken before, oldest first.
            item: what they took.
        """
        assert isinstance(self.neighbours, LiveNeighbours), "a memory that was counted once stays as it is"
        self.neighbours.observe(history, item)

    def recall(self, histories: Sequence[IntArray]) -> RememberedItems:
        """What is remembered for the moment after each history."""
        found = [self.near(history) for history in histories]
        items, weights = [items for items, _ in found], [weights for _, weights in found]
        return RememberedItems(items, weights, self.weights.strengths, self.prefix_power)

    def log_likelihoods(self, histories: Sequence[IntArray], items: IntArray, by_model: FloatArray) -> FloatArray:
        """Of model and memory together; see `peso.decoding.memory`.

        Args:
            histories: per target.
            items: int64 [T], the targets' items.
            by_model: float64 [T, M], the model's log-probability of each code in nats.

        Returns:
            float64 [T], in nats.
        """
        of_prefix, of_code = self._counts(histories, items)
        strengths = np.array(self.weights.strengths)
        by_code = mixed_log_probabilities(of_prefix, of_code, by_model, strengths, self.prefix_power)
        return np.asarray(by_code.sum(1))

    def _counts(self, histories: Sequence[IntArray], items: IntArray) -> tuple[FloatArray, FloatArray]:
        """C of the prefix before each code of each target, and with the code; float64 [T, M] each."""
        num_levels = self.codes.shape[1]
        of_prefix, of_code = np.zeros((len(items), num_levels)), np.zeros((len(items), num_levels))
        for row, (history, item) in enumerate(zip(histories, items, strict=True)):
            near, weights = self.near(history)
            shares_prefix = np.logical_and.accumulate(self.codes[near] == self.codes[item], axis=1)
            of_code[row] = weights @ shares_prefix
            of_prefix[row] = np.r_[weights.sum(), of_code[row, :-1]]
        return of_prefix, of_code


def build_memory(
    dataset: Dataset,
    events: IntArray,
    codes: IntArray,
    config: MemoryConfig,
    similar: Neighbours | None = None,
    weights: MemoryWeights | None = None,
    count: Counter = count_neighbours,
) -> NeighbourMemory:
    """Counts some events.

    Args:
        dataset: the events.
        events: event indices that may be known, int64, ascending.
        codes: int64 [N, M], the items' codes.
        config: what is fixed.
        similar: see `peso.semantic_ids.similar_items`.
        weights: how to count; what is usual by default.
        count: `LiveNeighbours` for a memory that goes on counting.
    """
    weights = weights or usual_weights(config, codes.shape[1], similar is not None)
    neighbours = count(dataset, events, weights.distance_weights, weights.backward, config.decay, config.discount)
    return NeighbourMemory(neighbours, similar, codes, weights, config.prefix_power, has_repeats(dataset))


def is_open(config: MemoryConfig, has_content: bool) -> bool:
    """Whether a configuration leaves anything to be chosen."""
    parts = [config.strength, config.lag_weights, config.distance_weights, config.backward]
    return "auto" in parts or (has_content and config.content_weight == "auto")


def weights_for(
    dataset: Dataset,
    events: IntArray,
    codes: IntArray,
    config: MemoryConfig,
    histories: Sequence[IntArray],
    items: IntArray,
    by_model: FloatArray,
    similar: Neighbours | None = None,
) -> MemoryWeights:
    """How pairs count by what counts alone say of some targets, and what makes these likeliest beside the model.

    Args:
        dataset: the events.
        events: event indices that may be known, int64, ascending.
        codes: int64 [N, M], the items' codes.
        config: what is open, and what is fixed.
        histories: per target; of none, everything is as is usual.
        items: int64 [T], the targets' items.
        by_model: see `NeighbourMemory.log_likelihoods`.
        similar: see `build_memory`.
    """
    counting = chosen_counting(dataset, events, histories, items, config)
    start = replace(
        usual_weights(config, codes.shape[1], similar is not None),
        lag_weights=counting.lag_weights, distance_weights=counting.distance_weights, backward=counting.backward,
    )  # fmt: skip
    repeats = has_repeats(dataset)
    evidence = gather_evidence(dataset, events, codes, histories, items, config, start, repeats, similar)
    return chosen_weights(evidence, by_model, config, start, CONTENT if similar is not None else {})
