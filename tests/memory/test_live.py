"""Counts that go on: event by event they are what counting everything at once gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.data.dataset import IntArray
from peso.data.examples import known_events
from peso.memory.live import LiveNeighbours
from peso.memory.neighbours import count_neighbours
from worlds import tiny_dataset

LAGS = (1.0, 0.5, 0.2)


def events_before(block: int, seed: int) -> tuple[IntArray, IntArray]:
    """Events of the blocks before one, and that block's, in an order in which users take turns at random."""
    dataset = tiny_dataset(seed=seed)
    later = np.flatnonzero(dataset.event_block == block)
    turns = np.random.default_rng(seed).permutation(dataset.event_user[later])
    queues = {user: list(later[dataset.event_user[later] == user]) for user in np.unique(turns).tolist()}
    return np.flatnonzero(dataset.event_block < block), np.array([queues[user].pop(0) for user in turns.tolist()])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.3]), st.sampled_from([0.5, 1.0]), st.sampled_from([0.0, 0.6]))
def test_event_by_event_is_all_at_once(seed: int, backward: float, decay: float, discount: float) -> None:
    dataset, (known, new) = tiny_dataset(seed=seed), events_before(2, seed)
    counting = ((1.0, 0.4), backward, decay, discount)
    live = LiveNeighbours(dataset, known, *counting)
    for event in new.tolist():
        start = dataset.user_offsets[dataset.event_user[event]]
        live.observe(dataset.event_item[start:event], int(dataset.event_item[event]))
    whole = count_neighbours(dataset, np.arange(dataset.num_events), *counting)
    for user in range(dataset.num_users):
        history = dataset.event_item[dataset.user_offsets[user] : dataset.user_offsets[user + 1]]
        (ours, our_weights), (theirs, their_weights) = live.near(history, LAGS), whole.near(history, LAGS)
        assert np.array_equal(ours, theirs)
        np.testing.assert_allclose(our_weights, their_weights, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_before_any_event_it_is_what_was_counted(decay: float) -> None:
    dataset = tiny_dataset()
    events = known_events(dataset, 1)
    live = LiveNeighbours(dataset, events, (1.0,), 0.5, decay, 0.4)
    plain = count_neighbours(dataset, events, (1.0,), 0.5, decay, 0.4)
    history = dataset.event_item[events][:3]
    for ours, theirs in zip(live.near(history, LAGS), plain.near(history, LAGS), strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_the_first_event_of_a_new_user_is_no_pair_and_the_second_is() -> None:
    dataset = tiny_dataset()
    live = LiveNeighbours(dataset, np.empty(0, dtype=np.int64), (1.0,), 0.5, 0.9)
    live.observe(np.empty(0, dtype=np.int64), 3)
    assert len(live.near(np.array([3]), LAGS)[0]) == 0
    live.observe(np.array([3]), 8)
    items, weights = live.near(np.array([3]), LAGS)
    assert items.tolist() == [8] and weights.tolist() == [1.0]
    items, weights = live.near(np.array([8]), LAGS)
    assert items.tolist() == [3] and weights.tolist() == [0.5]
