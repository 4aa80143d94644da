"""What stood near what, counted by hand."""

import numpy as np
import pytest

from peso.data.examples import known_events, targets_of_block
from peso.memory.neighbours import Neighbours, count_neighbours, events_with_known_earlier, not_taken
from worlds import tiny_dataset


def pairs_of(neighbours: Neighbours, num_items: int) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for item in range(num_items):
        near, weights = neighbours.near(np.array([item]), [1.0])
        found |= {(item, int(other)): float(weight) for other, weight in zip(near, weights, strict=True)}
    return found


def test_counts_are_those_of_a_loop() -> None:
    dataset = tiny_dataset()
    events = known_events(dataset, 2)
    found = pairs_of(count_neighbours(dataset, events, (1.0, 0.4), backward=0.25, decay=0.5), dataset.num_items)
    known = set(events.tolist())
    expected: dict[tuple[int, int], float] = {}
    for event in events.tolist():
        for distance, distance_weight in ((1, 1.0), (2, 0.4)):
            earlier = event - distance
            if earlier in known and dataset.event_user[earlier] == dataset.event_user[event]:
                weight = distance_weight * 0.5 ** int(2 - dataset.event_block[event])
                before, after = int(dataset.event_item[earlier]), int(dataset.event_item[event])
                expected[before, after] = expected.get((before, after), 0.0) + weight
                expected[after, before] = expected.get((after, before), 0.0) + 0.25 * weight
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(expected[pair]) for pair in found)


@pytest.mark.parametrize("discount", [0.4, 1.0])
def test_neighbours_of_frequent_items_are_discounted(discount: float) -> None:
    dataset = tiny_dataset()
    events = known_events(dataset, 2)
    plain, found = (
        pairs_of(count_neighbours(dataset, events, (1.0, 0.4), 0.25, 0.5, one), dataset.num_items)
        for one in (0.0, discount)
    )
    num_taken = [int((dataset.event_item[events] == item).sum()) for item in range(dataset.num_items)]
    assert max(num_taken) > 2 * min(filter(None, num_taken))
    assert found == pytest.approx(
        {(item, other): w / num_taken[item] ** discount for (item, other), w in plain.items()}
    )


def test_nothing_counts_backward_at_weight_zero() -> None:
    dataset = tiny_dataset()
    found = pairs_of(count_neighbours(dataset, np.arange(dataset.num_events), (1.0,), 0.0, 1.0), dataset.num_items)
    late = events_with_known_earlier(dataset, np.arange(dataset.num_events), 1)
    forward = set(zip(dataset.event_item[late - 1].tolist(), dataset.event_item[late].tolist(), strict=True))
    assert found.keys() == forward
    assert all(weight > 0 for weight in found.values())


def test_the_last_items_add_up_by_their_weights() -> None:
    dataset = tiny_dataset()
    neighbours = count_neighbours(dataset, np.arange(dataset.num_events), (1.0, 0.5), 0.5, decay=1.0)
    together = dict(zip(*neighbours.near(np.array([1, 2, 3]), (1.0, 0.5)), strict=True))
    expected: dict[int, float] = {}
    for item, lag_weight in ((3, 1.0), (2, 0.5)):
        for other, weight in zip(*neighbours.near(np.array([item]), [1.0]), strict=True):
            expected[int(other)] = expected.get(int(other), 0.0) + lag_weight * float(weight)
    assert {int(item): float(weight) for item, weight in together.items()} == pytest.approx(expected)
    nothing, no_weights = neighbours.near(np.array([], dtype=np.int64), (1.0,))
    assert len(nothing) == len(no_weights) == 0


def test_what_was_taken_is_left_out() -> None:
    items, weights = np.array([2, 5, 7, 9]), np.array([0.2, 0.5, 0.7, 0.9])
    for history in ([], [3], [9], [1, 9, 5, 12, 5], [2, 5, 7, 9]):
        found, left = not_taken(items, weights, np.array(history, dtype=np.int64))
        assert found.tolist() == [item for item in items.tolist() if item not in history]
        assert left.tolist() == [item / 10 for item in found.tolist()]
    assert len(not_taken(items[:0], weights[:0], np.array([1, 2]))[0]) == 0


def test_held_out_events_of_the_block_are_not_known() -> None:
    dataset = tiny_dataset()
    known = known_events(dataset, 1)
    for role in ("valid", "test"):
        assert not np.isin(targets_of_block(dataset, 1, role), known).any()
    assert (dataset.event_block[known] <= 1).all()
    late = events_with_known_earlier(dataset, known, 3)
    assert np.isin(late - 3, known).all()
    assert (dataset.event_user[late] == dataset.event_user[late - 3]).all()
