"""What followed what, counted by hand."""

import numpy as np
import pytest

from peso.data.examples import known_events, targets_of_block
from peso.data.transitions import consecutive_events, count_transitions
from worlds import tiny_dataset


def test_counts_are_those_of_a_loop() -> None:
    dataset = tiny_dataset()
    events = known_events(dataset, 2)
    transitions = count_transitions(dataset, events, decay=0.5)
    known = set(events.tolist())
    expected: dict[tuple[int, int], float] = {}
    for event in events.tolist():
        if event - 1 in known and dataset.event_user[event - 1] == dataset.event_user[event]:
            pair = (int(dataset.event_item[event - 1]), int(dataset.event_item[event]))
            expected[pair] = expected.get(pair, 0.0) + 0.5 ** int(2 - dataset.event_block[event])
    found: dict[tuple[int, int], float] = {}
    for item in range(dataset.num_items):
        followers, weights = transitions.following(np.array([item]), [1.0])
        found |= {(item, int(f)): float(w) for f, w in zip(followers, weights, strict=True)}
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(expected[pair]) for pair in found)


def test_the_last_items_add_up_by_their_weights() -> None:
    dataset = tiny_dataset()
    transitions = count_transitions(dataset, np.arange(dataset.num_events), decay=1.0)
    together = dict(zip(*transitions.following(np.array([1, 2, 3]), (1.0, 0.5)), strict=True))
    expected: dict[int, float] = {}
    for item, lag_weight in ((3, 1.0), (2, 0.5)):
        for follower, weight in zip(*transitions.following(np.array([item]), [1.0]), strict=True):
            expected[int(follower)] = expected.get(int(follower), 0.0) + lag_weight * float(weight)
    assert {int(item): float(weight) for item, weight in together.items()} == pytest.approx(expected)
    nothing, no_weights = transitions.following(np.array([], dtype=np.int64), (1.0,))
    assert len(nothing) == len(no_weights) == 0


def test_held_out_events_of_the_block_are_not_known() -> None:
    dataset = tiny_dataset()
    known = known_events(dataset, 1)
    for role in ("valid", "test"):
        assert not np.isin(targets_of_block(dataset, 1, role), known).any()
    assert (dataset.event_block[known] <= 1).all()
    second = consecutive_events(dataset, known)
    assert (dataset.event_user[second] == dataset.event_user[second - 1]).all()
