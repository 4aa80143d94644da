"""One code per item: items that share a semantic ID are moved to the nearest free one."""

from collections.abc import Sequence

import numpy as np

from peso.data.dataset import IntArray
from peso.errors import DataError


def make_unique(codes: IntArray, level_sizes: Sequence[int], priority: IntArray) -> IntArray:
    """Gives every item a code of its own, changing as few and as late codes as it can.

    Of the items that share a code, the first in `priority` keeps it. Each other one, in the same order, moves to the
    next free code of the last level under its own prefix, cyclically; where a prefix is full, the level above is
    advanced in the same way. An item thus stays among its nearest neighbours of the codebook's tree, and adding items
    of a lower priority never changes the code of those before them.

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
    space = int(np.prod(sizes.astype(object)))
    if len(codes) > space:
        raise DataError(f"{len(codes)} items cannot have distinct codes of {space}; add a level or codes.")
    if space >= 2**62:
        raise DataError(f"level sizes {tuple(level_sizes)} make more than 2^62 codes; use fewer levels.")
    strides = np.r_[np.cumprod(sizes[:0:-1])[::-1], 1]  # a code as one number: its place in lexicographic order
    numbers = codes @ strides
    _, first_places = np.unique(numbers[priority], return_index=True)
    keeps = np.zeros(len(codes), dtype=bool)
    keeps[priority[first_places]] = True
    taken = set(numbers[keeps].tolist())
    for item in priority[~keeps[priority]].tolist():
        numbers[item] = _nearest_free(int(numbers[item]), sizes.tolist(), strides.tolist(), taken)
        taken.add(int(numbers[item]))
    return numbers[:, None] // strides % sizes


def _nearest_free(number: int, sizes: list[int], strides: list[int], taken: set[int]) -> int:
    for level in range(len(sizes) - 1, -1, -1):
        # Everything below `level` starts over inside each new prefix, at the item's own codes.
        own = number // strides[level] % sizes[level]
        for step in range(1, sizes[level]):
            moved = number + ((own + step) % sizes[level] - own) * strides[level]
            free = moved if moved not in taken else _free_below(moved, level, sizes, strides, taken)
            if free is not None:
                return free
    raise AssertionError("more items than codes, which was checked")


def _free_below(number: int, level: int, sizes: list[int], strides: list[int], taken: set[int]) -> int | None:
    span = strides[level]
    start = number - number % span
    candidates = (start + (number - start + step) % span for step in range(1, span))
    return next((candidate for candidate in candidates if candidate not in taken), None)
