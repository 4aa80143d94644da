"""Unique codes: nothing moves without need, and never far."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.errors import DataError
from peso.semantic_ids.assignment import make_unique


def test_by_hand() -> None:
    codes = np.array([[0, 1], [0, 1], [0, 2], [1, 0], [0, 1]])
    # Item 4 comes first and keeps (0, 1); items 0 and 1 take the next free codes of prefix 0: 3, then (cyclic) 0.
    unique = make_unique(codes, (2, 4), np.array([4, 0, 1, 2, 3]))
    assert unique.tolist() == [[0, 3], [0, 0], [0, 2], [1, 0], [0, 1]]


def test_a_full_prefix_spills_to_the_next() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 1], [1, 1]])
    unique = make_unique(codes, (2, 2), np.arange(4))
    assert unique.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_full_branches_are_skipped_level_by_level() -> None:
    # All eight items share (0, 1, 1): its pair of siblings fills first, then its branch, then the other half.
    unique = make_unique(np.array([[0, 1, 1]] * 8), (2, 2, 2), np.arange(8))
    codes = ["011", "010", "001", "000", "111", "110", "101", "100"]
    assert ["".join(map(str, row)) for row in unique.tolist()] == codes


def nearest_by_definition(code: list[int], sizes: tuple[int, ...], taken: set[tuple[int, ...]]) -> tuple[int, ...]:
    """The free code of the smallest cyclic distances: the first level's first, then the second's, and so on."""

    def distances(other: tuple[int, ...]) -> list[int]:
        return [(there - here) % size for there, here, size in zip(other, code, sizes, strict=True)]

    return min((other for other in product(*map(range, sizes)) if other not in taken), key=distances)


@given(sizes=st.sampled_from([(3, 4), (2, 3, 4), (7,)]), num_items=st.integers(1, 12), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_equals_the_definition(sizes: tuple[int, ...], num_items: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    num_items = min(num_items, int(np.prod(sizes)))
    codes = np.stack([random.integers(0, max(1, size // 2), num_items) for size in sizes], axis=1)
    expected: dict[int, tuple[int, ...]] = {}
    taken = {tuple(row) for row in codes.tolist()}
    owners: set[tuple[int, ...]] = set()
    for item, row in enumerate(codes.tolist()):
        is_first = tuple(row) not in owners
        owners.add(tuple(row))
        expected[item] = tuple(row) if is_first else nearest_by_definition(row, sizes, taken)
        taken.add(expected[item])
    unique = make_unique(codes, sizes, np.arange(num_items))
    assert [tuple(row) for row in unique.tolist()] == [expected[item] for item in range(num_items)]


def test_many_items_of_one_code_are_placed_quickly() -> None:
    unique = make_unique(np.zeros((3000, 3), dtype=np.int64), (64, 64, 64), np.arange(3000))
    assert unique[-1].tolist() == [0, 2999 // 64, 2999 % 64]


def test_one_level() -> None:
    assert make_unique(np.array([[3], [3], [0]]), (4,), np.arange(3)).tolist() == [[3], [1], [0]]


@given(
    sizes=st.sampled_from([(3, 4), (2, 2, 2, 2), (5,), (2, 3, 4)]),
    share=st.floats(0.1, 1.0),
    seed=st.integers(0, 200),
)
@settings(max_examples=80, deadline=None)
def test_properties(sizes: tuple[int, ...], share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    num_items = max(1, int(share * np.prod(sizes)))
    codes = np.stack([random.integers(0, size, num_items) for size in sizes], axis=1)
    priority = random.permutation(num_items)
    unique = make_unique(codes, sizes, priority)
    assert len({tuple(row) for row in unique.tolist()}) == num_items
    assert ((unique >= 0) & (unique < np.array(sizes))).all()
    # The first item of each shared code keeps it, so as many move as there are too few distinct codes.
    num_distinct = len({tuple(row) for row in codes.tolist()})
    assert (unique != codes).any(axis=1).sum() == num_items - num_distinct
    # Items of a lower priority never change the code of those before them that share none among themselves.
    kept = unique[priority[: num_items // 2]]
    first = codes[priority[: num_items // 2]]
    if len({tuple(row) for row in first.tolist()}) == len(first):
        assert kept.tolist() == first.tolist()


def test_too_many_items_are_refused() -> None:
    with pytest.raises(DataError, match="cannot have distinct codes"):
        make_unique(np.zeros((5, 2), dtype=np.int64), (2, 2), np.arange(5))


def test_a_code_outside_its_level_is_refused() -> None:
    with pytest.raises(DataError, match="item number 1 has code 4 at level 2"):
        make_unique(np.array([[0, 0], [1, 4]]), (2, 4), np.arange(2))
