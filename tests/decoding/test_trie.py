"""The trie against a dictionary of prefixes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.decoding.trie import Trie, build_trie, build_trie_from_columns
from peso.errors import DataError
from tries import assert_equal
from worlds import tiny_codes

SIZES = st.sampled_from([(60,), (8, 8), (300, 2), (4, 5, 6), (40_000, 3), (2, 3, 2, 5), (1, 64, 1, 1)])


def paths(trie: Trie) -> dict[tuple[int, ...], int]:
    """Every path from the root to a leaf."""
    found: dict[tuple[int, ...], int] = {(): 0}
    for offsets, codes in zip(trie.offsets, trie.codes, strict=True):
        found = {
            (*prefix, int(codes[child])): child
            for prefix, node in found.items()
            for child in range(int(offsets[node]), int(offsets[node + 1]))
        }
    return {prefix: int(trie.leaf_items[node]) for prefix, node in found.items()}


@given(num_items=st.integers(1, 60), sizes=SIZES, seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_leaves_are_exactly_the_allowed_items(num_items: int, sizes: tuple[int, ...], seed: int) -> None:
    codes = tiny_codes(60, sizes, seed)
    allowed = np.random.default_rng(seed).permutation(60)[:num_items]
    expected = {tuple(codes[item].tolist()): int(item) for item in allowed}
    trie = build_trie(codes, allowed)
    assert paths(trie) == expected
    assert list(paths(trie)) == sorted(expected)
    leaves = trie.leaves_of(torch.arange(-1, 70))
    assert [int(trie.leaf_items[leaf]) for leaf in leaves if leaf >= 0] == np.sort(allowed).tolist()


@given(num_items=st.integers(1, 60), sizes=SIZES, seed=st.integers(0, 50), num_kept=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_restricted_trie_equals_one_built_afresh(
    num_items: int, sizes: tuple[int, ...], seed: int, num_kept: int
) -> None:
    codes = tiny_codes(60, sizes, seed)
    generator = np.random.default_rng(seed)
    items, listed = generator.permutation(60)[:num_items], generator.permutation(60)[:num_kept]
    trie, both = build_trie(codes, items), np.intersect1d(items, listed)
    if len(both):
        assert_equal(trie.restricted_to(np.append(listed, [-1, 1000])), build_trie(codes, both))
    else:
        with pytest.raises(DataError, match="no item of the trie is left"):
            trie.restricted_to(listed)
    rest = np.setdiff1d(items, listed)
    if len(rest):
        assert_equal(trie.without(listed), build_trie(codes, rest))


def test_a_shrunk_trie_has_the_narrow_integers_of_a_fresh_one() -> None:
    columns, items = [np.array([3, 70_000, 5])], np.array([1, 2, 2**40])
    trie = build_trie_from_columns(columns, items)
    assert trie.codes[0].dtype == torch.int32
    assert trie.leaf_items.dtype == torch.int64
    assert_equal(trie.restricted_to(np.array([1])), build_trie_from_columns([np.array([3])], np.array([1])))


@pytest.mark.parametrize("code_bits", [12, 18, 30])
def test_every_way_to_sort_gives_the_same_trie(code_bits: int) -> None:
    """Keys with the row number, keys without, and no keys at all."""
    columns = [np.random.default_rng(level).integers(0, 1 << code_bits, 70_000) for level in range(3)]
    items = np.arange(70_000)
    order = np.lexsort(columns[::-1])
    trie = build_trie_from_columns(columns, items)
    assert torch.equal(trie.leaf_items.long(), torch.from_numpy(order))
    assert torch.equal(trie.codes[2].long(), torch.from_numpy(columns[2][order]))


@pytest.mark.parametrize("num_items", [10_000, 300_000])
@pytest.mark.parametrize("spread", [0, 1, 12])
def test_a_trie_takes_at_most_forty_bytes_per_item(num_items: int, spread: int) -> None:
    """For codes drawn evenly, for crowded first codes, and for chains without a fork below the first levels."""
    space = np.random.default_rng(0).choice(256**4 >> spread, num_items, replace=False)
    columns = [(space >> shift) & 255 for shift in (24, 16, 8, 0)]
    trie = build_trie_from_columns(columns, np.arange(num_items))
    assert trie.num_bytes <= 40 * num_items
    derived = trie.num_resident_bytes - trie.num_bytes
    assert 0 < derived <= 0.75 * 2**20 + 13 * num_items
    assert trie.to("cpu").num_bytes == trie.num_bytes


def test_shared_codes_are_refused() -> None:
    with pytest.raises(DataError, match="items number 0 and 1 share all their codes"):
        build_trie(np.array([[0, 1], [0, 1]]), np.array([1, 0]))


def test_an_item_listed_twice_is_refused() -> None:
    with pytest.raises(DataError, match="item number 1 is listed twice"):
        build_trie(np.array([[0, 1], [0, 2]]), np.array([1, 0, 1]))


def test_empty_catalogue_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        build_trie(np.array([[0, 1]]), np.array([], dtype=np.int64))
