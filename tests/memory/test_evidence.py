"""Evidence under any weights is what a memory counted with those weights says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.config import MemoryConfig
from peso.data.examples import items_taken_before, known_events, targets_of_block
from peso.memory.evidence import gather_evidence
from peso.memory.neighbours import Neighbours, count_neighbours
from peso.memory.weights import MemoryWeights
from worlds import tiny_codes, tiny_dataset

DATASET, CODES = tiny_dataset(num_users=30), tiny_codes()
EVENTS = known_events(DATASET, 2)
TARGETS = targets_of_block(DATASET, 2, "valid")
HISTORIES, ITEMS = items_taken_before(DATASET, TARGETS), DATASET.event_item[TARGETS]
START = MemoryWeights((1.0,) * 3, (1.0,) * 2, 1.0, 0.0, (1.0,) * 3)
weight = st.floats(0, 2)


def like_the_next() -> Neighbours:
    items = np.arange(DATASET.num_items)
    return Neighbours(np.arange(DATASET.num_items + 1), (items + 1) % DATASET.num_items, np.full(len(items), 0.5))


@settings(max_examples=30, deadline=None)
@given(
    lags=st.tuples(weight, weight, weight),
    distances=st.tuples(weight, weight),
    backward=weight,
    content_weight=weight,
    decay=st.sampled_from([0.5, 1.0]),
    discount=st.sampled_from([0.0, 0.4]),
    has_repeats=st.booleans(),
    has_content=st.booleans(),
)
def test_it_is_what_a_memory_counts(
    lags: tuple[float, ...],
    distances: tuple[float, ...],
    backward: float,
    content_weight: float,
    decay: float,
    discount: float,
    has_repeats: bool,
    has_content: bool,
) -> None:
    similar = like_the_next() if has_content else None
    config = MemoryConfig(decay=decay, discount=discount)
    evidence = gather_evidence(DATASET, EVENTS, CODES, HISTORIES, ITEMS, config, START, has_repeats, similar)
    found = evidence.remembered(MemoryWeights(lags, distances, backward, content_weight, (1.0,) * 3))
    counted = count_neighbours(DATASET, EVENTS, distances, backward, decay, discount)
    for row, (history, item) in enumerate(zip(HISTORIES, ITEMS, strict=True)):
        together = np.zeros(DATASET.num_items)
        near, counts = counted.near(history, lags)
        together[near] += counts
        if similar is not None:
            alike, of_alike = similar.near(history, lags)
            together[alike] += content_weight * of_alike
        if not has_repeats:
            together[history] = 0
        for level in range(4):
            behind = (CODES[:, :level] == CODES[item, :level]).all(1)
            assert found[row, level] == pytest.approx(together[behind].sum())


def test_no_targets_and_empty_histories() -> None:
    config = MemoryConfig()
    none = gather_evidence(DATASET, EVENTS, CODES, [], ITEMS[:0], config, START, False)
    assert none.counts.shape == (0, 4, 3, 2, 2) and none.content is None
    empty = gather_evidence(DATASET, EVENTS, CODES, [np.empty(0, dtype=np.int64)], ITEMS[:1], config, START, False)
    assert not empty.counts.any()
    unheard = gather_evidence(DATASET, EVENTS[:0], CODES, HISTORIES, ITEMS, config, START, False)
    assert not unheard.counts.any()
