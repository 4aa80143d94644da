"""Blocks that share no user."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.data.dataset import Dataset
from peso.data.examples import targets_of_block
from peso.data.user_split import split_by_users
from peso.errors import DataError
from worlds import tiny_dataset


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(20, 60), st.integers(2, 4))
def test_every_user_is_in_one_block_and_no_event_is_lost(seed: int, num_users: int, num_blocks: int) -> None:
    dataset = tiny_dataset(num_users=num_users, num_blocks=num_blocks)
    split = split_by_users(dataset, seed)
    pairs = np.unique(np.stack([split.event_user, split.event_block]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]
    assert np.array_equal(split.event_item, dataset.event_item)
    assert np.array_equal(split.event_user, dataset.event_user)
    natural, ours = (np.bincount(one.event_block, minlength=num_blocks) for one in (dataset, split))
    longest = np.diff(dataset.user_offsets).max()
    assert np.abs(natural.cumsum() - ours.cumsum()).max() <= longest
    for block in range(num_blocks):
        targets = np.concatenate([targets_of_block(split, block, role) for role in ("train", "valid", "test")])
        others = split.event_user[split.event_block != block]
        assert not np.isin(split.event_user[targets], others).any()


def test_seeds_decide_the_draw() -> None:
    dataset = tiny_dataset(num_users=40)
    assert split_by_users(dataset, 1).fingerprint == split_by_users(dataset, 1).fingerprint
    assert split_by_users(dataset, 1).fingerprint != split_by_users(dataset, 2).fingerprint


def test_by_hand() -> None:
    """Four users of three events each and halves of six: two users per block, whoever is drawn first in the first."""
    users = np.repeat(np.arange(4), 3)
    blocks = np.tile([0, 0, 1], 4)
    blocks[:6] = [0, 0, 0, 0, 1, 1]
    blocks[6:] = [0, 1, 1, 0, 1, 1]
    dataset = Dataset(list("abcd"), ["i", "j", "k"], [""] * 3, users, np.tile(np.arange(3), 4), blocks, 2)
    split = split_by_users(dataset, 0)
    first = np.random.default_rng(0).permutation(4)[:2]
    assert set(split.event_user[split.event_block == 0]) == set(first)


def test_too_few_users_are_refused() -> None:
    users, blocks = np.zeros(6, dtype=np.int64), np.array([0, 0, 0, 1, 1, 1])
    dataset = Dataset(["a"], ["i"], [""], users, np.zeros(6, dtype=np.int64), blocks, 2)
    with pytest.raises(DataError, match="1 users are too few for 2 blocks"):
        split_by_users(dataset, 0)
