"""The protocol: who is a target, and what its history may hold."""

import numpy as np

from peso.data.dataset import Dataset
from peso.data.examples import (
    all_events_of_block,
    catalogue_items,
    has_repeats,
    history_starts,
    items_seen_in_training,
    items_taken_before,
    targets_of_block,
)
from peso.data.list_rules import ListRules
from worlds import tiny_dataset


def by_hand() -> Dataset:
    """User 0: items 0 1 2 3 in block 0 and 4 5 6 in block 1; user 1: items 7 8 in block 1 (too few to evaluate)."""
    return Dataset(
        ["x", "y"],
        [str(n) for n in range(10)],
        [""] * 10,
        np.array([0] * 7 + [1] * 2),
        np.arange(9),
        np.array([0, 0, 0, 0, 1, 1, 1, 1, 1]),
        2,
    )


def test_roles_by_hand() -> None:
    dataset = by_hand()
    assert targets_of_block(dataset, 0, "train").tolist() == [0, 1]
    assert targets_of_block(dataset, 0, "valid").tolist() == [2]
    assert targets_of_block(dataset, 0, "test").tolist() == [3]
    assert targets_of_block(dataset, 1, "train").tolist() == [4, 7, 8]
    assert targets_of_block(dataset, 1, "valid").tolist() == [5]
    assert targets_of_block(dataset, 1, "test").tolist() == [6]
    assert all_events_of_block(dataset, 1).tolist() == [4, 5, 6, 7, 8]


def test_histories_by_hand() -> None:
    dataset = by_hand()
    assert history_starts(dataset, np.array([0, 6, 7, 8]), 3).tolist() == [0, 3, 7, 7]


def test_every_event_has_one_role_and_no_history_looks_ahead() -> None:
    dataset = tiny_dataset(40, 200, 4)
    for block in range(4):
        roles = [targets_of_block(dataset, block, role) for role in ("train", "valid", "test")]
        together = np.sort(np.concatenate(roles))
        assert together.tolist() == all_events_of_block(dataset, block).tolist()
        for targets in roles:
            starts = history_starts(dataset, targets, 5)
            for start, target in zip(starts, targets, strict=True):
                history = slice(start, target)
                assert (dataset.event_user[history] == dataset.event_user[target]).all()
                assert (dataset.event_block[history] <= block).all()
                assert target - start <= 5


def test_seen_items_exclude_validation_and_test_of_the_block() -> None:
    seen = items_seen_in_training(by_hand(), 1)
    assert np.flatnonzero(seen).tolist() == [0, 1, 2, 3, 4, 7, 8]


def test_catalogues() -> None:
    dataset = by_hand()
    assert catalogue_items(dataset, "known", 0).tolist() == [0, 1, 2, 3]
    assert catalogue_items(dataset, "known", 1).tolist() == list(range(9))
    assert catalogue_items(dataset, "all", 0).tolist() == list(range(10))


def test_repeats_are_found_within_a_block_only() -> None:
    items, blocks = np.array([0, 1, 0, 2, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    users = np.array([0, 0, 0, 0, 1, 1])
    dataset = Dataset(("a", "b"), ("x", "y", "z"), ("", "", ""), users, items, blocks, 2)
    assert not has_repeats(dataset)
    assert ListRules.choose(dataset, "all", "auto").excludes_history
    assert [list(taken) for taken in items_taken_before(dataset, np.array([0, 3, 5]))] == [[], [0, 1, 0], [1]]
    again = Dataset(("a", "b"), ("x", "y", "z"), ("", "", ""), users, items, np.array([0, 0, 0, 1, 0, 0]), 2)
    assert has_repeats(again)
    assert not ListRules.choose(again, "all", "auto").excludes_history
    assert ListRules.choose(again, "all", "excluded").excludes_history
