"""Targets in another order: the same events of the same users and blocks, and nothing else changes places."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.data.dataset import Dataset
from peso.data.examples import targets_of_block
from peso.data.shuffling import in_another_order
from worlds import tiny_dataset

WHOLE = tiny_dataset()


def targets_of(*blocks: int) -> np.ndarray:
    return np.concatenate([targets_of_block(WHOLE, block, "train") for block in blocks])


def taken(dataset: Dataset, events: np.ndarray) -> Counter[tuple[int, int, int]]:
    return Counter(
        zip(
            dataset.event_user[events].tolist(),
            dataset.event_item[events].tolist(),
            dataset.event_block[events].tolist(),
            strict=True,
        )
    )


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.01, 1), seed=st.integers(0, 1000), blocks=st.sampled_from([(0,), (1,), (2,), (0, 1, 2)]))
def test_targets_stay_with_their_users_and_blocks_and_all_else_stays(
    share: float, seed: int, blocks: tuple[int, ...]
) -> None:
    targets = targets_of(*blocks)
    shuffled = in_another_order(WHOLE, targets, share, seed)
    assert taken(shuffled, targets) == taken(WHOLE, targets)
    others = np.setdiff1d(np.arange(WHOLE.num_events), targets)
    assert (shuffled.event_item[others] == WHOLE.event_item[others]).all()
    assert (shuffled.event_user == WHOLE.event_user).all() and (shuffled.event_block == WHOLE.event_block).all()


def test_nobody_shuffled_is_the_data_set_itself() -> None:
    assert in_another_order(WHOLE, targets_of(0), 0.0, 0) is WHOLE
    assert in_another_order(WHOLE, targets_of(0)[:0], 1.0, 0) is WHOLE


def test_the_order_is_that_of_the_seed() -> None:
    first, again, second = (in_another_order(WHOLE, targets_of(0), 1.0, seed).event_item for seed in (0, 0, 1))
    assert (first == again).all() and (first != second).any()


def long_histories(num_users: int, length: int) -> Dataset:
    """Users who each took the items 0, 1, 2, ... in this order, in one block."""
    users, items = np.repeat(np.arange(num_users), length), np.tile(np.arange(length), num_users)
    names = [[f"{kind}{number}" for number in range(size)] for kind, size in (("u", num_users), ("i", length))]
    return Dataset(names[0], names[1], [""] * length, users, items, np.zeros_like(users), num_blocks=1)


@pytest.mark.parametrize("share", [0.25, 0.9])
def test_as_many_users_are_shuffled_as_wanted_and_whole(share: float) -> None:
    num_users, length = 2000, 12
    dataset = long_histories(num_users, length)
    shuffled = in_another_order(dataset, np.arange(dataset.num_events), share, seed=3)
    by_user = shuffled.event_item.reshape(num_users, length)
    is_changed = (by_user != np.arange(length)).any(1)
    assert is_changed.mean() == pytest.approx(share, abs=0.04)
    # Every order is as likely: each item is first for as many.
    firsts = np.bincount(by_user[is_changed, 0], minlength=length) / is_changed.sum()
    assert firsts == pytest.approx(np.full(length, 1 / length), abs=0.04)
