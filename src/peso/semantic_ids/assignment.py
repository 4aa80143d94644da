"""One code per item: items that share a semantic ID are moved to the nearest free one."""

from collections.abc import Sequence
from math import prod

import numpy as np

from peso.data.dataset import IntArray
from peso.errors import DataError


def make_unique(codes: IntArray, level_sizes: Sequence[int], priority: IntArray) -> IntArray:
    """Gives every item a code of its own, changing as few and as late codes as it can.

    Of the items that share a code, the first in `priority` keeps it; a code that a single item has stays with it. Each
    other item, in the same order, moves to the next free code of the last level under its own prefix, cyclically;
    where a prefix is full, to the nearest prefix with a free code, by the same rule one level up, and there to the
    free code nearest its own. An item thus stays among its nearest neighbours of the codebook's tree.

    Args:
        codes: int64 [N, M], the quantizer's codes.
        level_sizes: codes per level, length M.
        priority: int64 [N], a permutation of the items; earlier items keep their code.

    Returns:
        int64 [N, M], all rows distinct.

    Raises:
        DataError: a code is outside its level, or there are more items than codes.
    """
    sizes = np.asarray(level_sizes, dtype=np.int64)
    outside = np.argwhere((codes < 0) | (codes >= sizes))
    if len(outside):
        item, level = (int(number) for number in outside[0])
        raise DataError(
            f"item number {item} has code {int(codes[item, level])} at level {level + 1}, "
            f"which has codes 0 to {int(sizes[level]) - 1}; check the index."
        )
    check_capacity(len(codes), level_sizes)
    strides = np.r_[np.cumprod(sizes[:0:-1])[::-1], 1]  # a code as one number: its place in lexicographic order
    numbers = codes @ strides
    _, first_places = np.unique(numbers[priority], return_index=True)
    keeps = np.zeros(len(codes), dtype=bool)
    keeps[priority[first_places]] = True
    moving = priority[~keeps[priority]].tolist()
    if moving:
        tree = _CodeTree(numbers[keeps], sizes.tolist(), strides.tolist())
        for item in moving:
            numbers[item] = tree.take_nearest(int(numbers[item]))
    return numbers[:, None] // strides % sizes


def check_capacity(num_items: int, level_sizes: Sequence[int]) -> None:
    """Whether every item can have a code of its own, and every code a number.

    Args:
        num_items: items.
        level_sizes: codes per level.

    Raises:
        DataError: there are more items than codes, or more codes than 2^62.
    """
    space = prod(level_sizes)
    if num_items > space:
        raise DataError(f"{num_items:,} items cannot have distinct codes of {space:,}; add a level or codes.")
    if space >= 2**62:
        raise DataError(f"level sizes {tuple(level_sizes)} make more than 2^62 codes; use fewer levels or codes.")


class _CodeTree:
    """Which codes are taken, counted at every node, so that full branches are skipped without a look inside."""

    def __init__(self, taken: IntArray, sizes: list[int], strides: list[int]) -> None:
        self._sizes, self._strides = sizes, strides
        self._num_taken: list[dict[int, int]] = []
        for stride in strides:
            nodes, counts = np.unique(taken // stride, return_counts=True)
            self._num_taken.append(dict(zip(nodes.tolist(), counts.tolist(), strict=True)))

    def take_nearest(self, number: int) -> int:
        """Takes the free code nearest to `number`: fewest levels changed, then the next one, cyclically."""
        level = len(self._sizes) - 1
        while level > 0 and self._is_full(level - 1, number):  # climb to the deepest branch with a free code
            level -= 1
        for deeper in range(level, len(self._sizes)):
            number = self._first_open(deeper, number)
        for counts, stride in zip(self._num_taken, self._strides, strict=True):
            counts[number // stride] = counts.get(number // stride, 0) + 1
        return number

    def _is_full(self, level: int, number: int) -> bool:
        """Whether the branch of `number` that fixes the codes of levels 0 to `level` has no free code."""
        stride = self._strides[level]
        return self._num_taken[level].get(number // stride, 0) == stride

    def _first_open(self, level: int, number: int) -> int:
        """The first of `number`, and `number` with its code of `level` advanced cyclically, whose branch is open."""
        size, stride = self._sizes[level], self._strides[level]
        own = number // stride % size
        for step in range(size):
            moved = number + ((own + step) % size - own) * stride
            if not self._is_full(level, moved):
                return moved
        raise AssertionError("more items than codes, which was checked")
