"""The trie against a dictionary of prefixes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.decoding.trie import Trie, build_trie, children_of
from peso.errors import DataError
from worlds import tiny_codes


def paths(trie: Trie) -> dict[tuple[int, ...], int]:
    """Every path from the root to a leaf, walked with `children_of`."""
    found: dict[tuple[int, ...], int] = {(): 0}
    for level in range(trie.num_levels):
        deeper = {}
        for prefix, node in found.items():
            children = children_of(trie, level, torch.tensor([node]))
            for code, child in zip(children.code.tolist(), children.node.tolist(), strict=True):
                deeper[(*prefix, code)] = child
        found = deeper
    return {prefix: int(trie.leaf_items[node]) for prefix, node in found.items()}


@given(
    num_items=st.integers(1, 60),
    sizes=st.sampled_from([(60,), (8, 8), (4, 5, 6), (2, 3, 2, 5)]),
    seed=st.integers(0, 50),
)
@settings(max_examples=40, deadline=None)
def test_leaves_are_exactly_the_allowed_items(num_items: int, sizes: tuple[int, ...], seed: int) -> None:
    codes = tiny_codes(60, sizes, seed)
    allowed = np.sort(np.random.default_rng(seed).permutation(60)[:num_items])
    expected = {tuple(codes[item].tolist()): int(item) for item in allowed}
    assert paths(build_trie(codes, allowed)) == expected


def test_children_by_hand() -> None:
    trie = build_trie(np.array([[0, 1], [0, 3], [2, 0]]), np.arange(3))
    children = children_of(trie, 1, torch.tensor([1, 0]))
    assert children.parent.tolist() == [0, 1, 1]
    assert children.code.tolist() == [0, 1, 3]
    assert trie.leaf_items[children.node].tolist() == [2, 0, 1]


def test_shared_codes_are_refused() -> None:
    with pytest.raises(DataError, match="share all their codes"):
        build_trie(np.array([[0, 1], [0, 1]]), np.arange(2))


def test_empty_catalogue_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        build_trie(np.array([[0, 1]]), np.array([], dtype=np.int64))
