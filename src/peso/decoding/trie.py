"""A trie over the codes of the items that may be recommended, as flat arrays of the smallest integers that fit.

The nodes of each level are numbered in lexicographic order of their prefix, so the children of one node are
consecutive: node j of level m has children offsets[m][j] : offsets[m][j + 1] of level m + 1, and a leaf is an item.
Levels whose nodes have many children also hold one bit per node and code, which is quicker to read than a long row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peso.decoding.bit_masks import mask_rows
from peso.decoding.dense_level import DenseLevel, dense_level
from peso.errors import DataError

_KEY_BITS = 63
_MASK_BYTES_PER_ITEM = 8
_MAX_DENSE_CELLS = 1 << 16
_MASK_FROM_CHILDREN = 4  # a mask pays where some node has more than a quarter of the codes
NO_LEAF = -1


@dataclass(frozen=True, eq=False)
class Trie:
    """Prefixes of a catalogue's codes in compressed sparse rows; level 0 is the root alone, level M the items.

    Attributes:
        offsets: per level m in 0..M-1, int32 (int64 where needed) [nodes of level m, and one more].
        codes: per level m, uint8, int16 or int32 [nodes of level m + 1]: the code that leads to each of them.
        bitmasks: per level m, uint8 [nodes of level m, bytes]: bit i of byte j is set where code 8 j + i leads to a
            child; no rows (uint8 [0, 0]) at levels of few children.
        leaf_items: int32 (int64 where needed) [N]: the item at each node of level M.
        known_items: like `leaf_items`, [N]: the items in ascending order.
        known_leaves: int32 (int64 where needed) [N]: the node of level M of each of `known_items`.
        max_children: per level m, the most children that one node has.
        num_codes: per level m, one more than the largest code.
    """

    offsets: tuple[Tensor, ...]
    codes: tuple[Tensor, ...]
    bitmasks: tuple[Tensor, ...]
    leaf_items: Tensor
    known_items: Tensor
    known_leaves: Tensor
    max_children: tuple[int, ...]
    num_codes: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks that the arrays fit together."""
        assert len(self.offsets) == len(self.codes) == len(self.bitmasks) == len(self.max_children)
        assert len(self.codes[-1]) == len(self.leaf_items) == len(self.known_items) == len(self.known_leaves)

    @property
    def num_levels(self) -> int:
        """Codes per item M."""
        return len(self.codes)

    @property
    def num_items(self) -> int:
        """Items that can be named."""
        return len(self.leaf_items)

    @property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return self.leaf_items.device

    @cached_property
    def dense_levels(self) -> tuple[DenseLevel | None, ...]:
        """Tables of the root and of the levels with a bit mask and few nodes; derived when first needed, not stored."""

        def pays(level: int) -> bool:
            num_cells = (len(self.offsets[level]) - 1) * self.num_codes[level]
            return level == 0 or (self.bitmasks[level].numel() > 0 and num_cells <= _MAX_DENSE_CELLS)

        levels = enumerate(zip(self.offsets, self.codes, self.num_codes, strict=True))
        return tuple(dense_level(*arrays) if pays(level) else None for level, arrays in levels)

    @cached_property
    def mask_rows(self) -> tuple[Tensor | None, ...]:
        """Rows of `peso.decoding.bit_masks` of levels with masks and without tables; derived like these, not stored."""
        levels = zip(self.bitmasks, self.offsets, self.dense_levels, strict=True)
        return tuple(
            mask_rows(mask, offsets) if mask.numel() and dense is None else None for mask, offsets, dense in levels
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays that its file holds."""
        arrays = (*self.offsets, *self.codes, *self.bitmasks, self.leaf_items, self.known_items, self.known_leaves)
        return sum(array.nbytes for array in arrays)

    @property
    def num_resident_bytes(self) -> int:
        """The same and what searches derive: tables of at most 0.75 MiB, and rows of masks of few bytes per item."""
        rows = [row.nbytes for row in self.mask_rows if row is not None]
        tables = [dense.closed.nbytes + dense.children.nbytes for dense in self.dense_levels if dense is not None]
        return self.num_bytes + sum(rows) + sum(tables)

    def to(self, device: torch.device | str) -> "Trie":
        """The same trie on another device."""

        def moved(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(moved(member) for member in value)
            return value.to(device) if isinstance(value, Tensor) else value

        return Trie(**{field.name: moved(getattr(self, field.name)) for field in fields(self)})

    def leaves_of(self, items: Tensor) -> Tensor:
        """The leaf of each item.

        Args:
            items: int64, any shape.

        Returns:
            int64, shaped like `items`: node numbers of level M, -1 where the trie has no such item.
        """
        rank = torch.searchsorted(self.known_items, items.to(self.known_items.dtype)).clamp_(max=self.num_items - 1)
        return torch.where(self.known_items[rank] == items, self.known_leaves[rank].long(), NO_LEAF)

    def restricted_to(self, items: NDArray[np.int64]) -> "Trie":
        """The trie of those of its items that are in an allow-list, without a new sort.

        Args:
            items: int64 [n], any order; items that the trie does not have are ignored.

        Raises:
            DataError: no item is left.
        """
        return self._with_leaves(self._are_listed(items))

    def without(self, items: NDArray[np.int64]) -> "Trie":
        """The trie of all its items but some (out of stock, say), without a new sort.

        Args:
            items: int64 [n], any order; items that the trie does not have are ignored.

        Raises:
            DataError: no item is left.
        """
        return self._with_leaves(~self._are_listed(items))

    def _are_listed(self, items: NDArray[np.int64]) -> Tensor:
        leaves = self.leaves_of(torch.from_numpy(np.asarray(items, dtype=np.int64)).to(self.device))
        listed = torch.zeros(self.num_items, dtype=torch.bool, device=self.device)
        listed[leaves[leaves != NO_LEAF]] = True
        return listed

    def _with_leaves(self, is_kept: Tensor) -> "Trie":
        """The sub-trie of some leaves; `is_kept` is bool [N]."""
        if not bool(is_kept.any()):
            raise DataError("no item of the trie is left to recommend; allow at least one of its items.")
        kept_known = is_kept[self.known_leaves]
        new_leaves = _running_count(is_kept)[self.known_leaves[kept_known]]
        leaf_items = self.leaf_items[is_kept]
        offsets: list[Tensor] = []
        codes: list[Tensor] = []
        for level in reversed(range(self.num_levels)):
            codes.append(self.codes[level][is_kept])
            bounds = _running_count(is_kept)[self.offsets[level]]
            is_kept = bounds[1:] > bounds[:-1]
            offsets.append(torch.cat([bounds[:-1][is_kept], bounds[-1:]]))
        return _assemble(offsets[::-1], codes[::-1], leaf_items, self.known_items[kept_known], new_leaves)


def build_trie(codes: NDArray[np.int64], items: NDArray[np.int64]) -> Trie:
    """The trie of some items.

    Args:
        codes: int64 [N, M], the unique codes of every item.
        items: int64 [n], which items may be named.

    Raises:
        DataError: no item, an item listed twice, or two items with the same codes.
    """
    return build_trie_from_columns([codes[items, level] for level in range(codes.shape[1])], items)


def build_trie_from_columns(columns: Sequence[NDArray[Any]], items: NDArray[Any]) -> Trie:
    """The trie of a table with one row per item.

    Args:
        columns: per level, integers [N] that are not negative: the code of each row's item.
        items: integers [N], distinct.

    Raises:
        DataError: no item, an item listed twice, or two items with the same codes.
    """
    if len(items) == 0:
        raise DataError("the catalogue to recommend from is empty; allow at least one item.")
    items = items.astype(np.int64, copy=False)
    if not (items[1:] > items[:-1]).all():
        by_item = np.argsort(items)
        items, columns = items[by_item], [column[by_item] for column in columns]
        twice = np.flatnonzero(items[1:] == items[:-1])
        if len(twice):
            raise DataError(f"item number {items[twice[0]]} is listed twice; list each item once.")
    order, columns = _sorted_rows(columns)
    is_new, was_new = np.zeros(len(items), dtype=bool), np.zeros(len(items), dtype=bool)
    is_new[0] = was_new[0] = True
    offsets, edge_codes = [], []
    for column in columns:
        is_new[1:] |= column[1:] != column[:-1]
        first_rows = np.flatnonzero(is_new)
        offsets.append(torch.from_numpy(np.append(np.flatnonzero(was_new[first_rows]), len(first_rows))))
        edge_codes.append(torch.from_numpy(column[first_rows]))
        was_new[:] = is_new
    if len(edge_codes[-1]) != len(items):
        twin = int(np.flatnonzero(~is_new)[0])
        one, other = sorted(items[order[twin - 1 : twin + 1]].tolist())
        raise DataError(f"items number {one} and {other} share all their codes; make codes unique.")
    known_leaves = np.empty(len(items), dtype=np.int64)
    known_leaves[order] = np.arange(len(items))
    leaf_items = torch.from_numpy(items[order])
    return _assemble(offsets, edge_codes, leaf_items, torch.from_numpy(items), torch.from_numpy(known_leaves))


def _sorted_rows(columns: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], list[NDArray[Any]]]:
    """The order of the rows, int64 [N], and the columns in that order: one sort of packed keys where they fit."""
    num_rows = len(columns[0])
    level_bits = [int(column.max()).bit_length() for column in columns]
    row_bits = (num_rows - 1).bit_length()
    if sum(level_bits) > _KEY_BITS:
        order = np.lexsort(columns[::-1])
        return order, [column[order].astype(np.int64, copy=False) for column in columns]
    keys = np.zeros(num_rows, dtype=np.int64)
    for column, bits in zip(columns, level_bits, strict=True):
        keys <<= bits
        keys |= column.astype(np.int64, copy=False)
    if sum(level_bits) + row_bits <= _KEY_BITS:
        # The row number rides in the low bits: sorting values is several times faster than sorting their order.
        keys <<= row_bits
        keys |= np.arange(num_rows)
        keys.sort()
        order = keys & ((1 << row_bits) - 1)
        keys >>= row_bits
    else:
        order = np.argsort(keys)
        keys = keys[order]
    sorted_columns = []
    for bits in reversed(level_bits):
        sorted_columns.append((keys & ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.int64))
        keys >>= bits
    return order, sorted_columns[::-1]


def _assemble(
    offsets: Sequence[Tensor], codes: Sequence[Tensor], leaf_items: Tensor, known_items: Tensor, known_leaves: Tensor
) -> Trie:
    """Shrinks the arrays (integers of any width) and adds what follows from them."""
    max_children = tuple(int((rows[1:] - rows[:-1]).max()) for rows in offsets)
    num_codes = tuple(int(level_codes.max()) + 1 for level_codes in codes)
    bitmasks = []
    for rows, level_codes, most, width in zip(offsets, codes, max_children, num_codes, strict=True):
        mask_bytes = (len(rows) - 1) * -(-width // 8)
        pays = most * _MASK_FROM_CHILDREN > width and mask_bytes <= _MASK_BYTES_PER_ITEM * len(leaf_items)
        bitmasks.append(_bitmask(rows, level_codes, width) if pays else _no_bitmask(leaf_items.device))
    return Trie(
        offsets=tuple(_shrunk(rows, torch.int32, torch.int64) for rows in offsets),
        codes=tuple(_shrunk(level_codes, torch.uint8, torch.int16, torch.int32) for level_codes in codes),
        bitmasks=tuple(bitmasks),
        leaf_items=_shrunk(leaf_items, torch.int32, torch.int64),
        known_items=_shrunk(known_items, torch.int32, torch.int64),
        known_leaves=_shrunk(known_leaves, torch.int32, torch.int64),
        max_children=max_children,
        num_codes=num_codes,
    )


def _bitmask(offsets: Tensor, codes: Tensor, num_codes: int) -> Tensor:
    num_nodes, num_bytes = len(offsets) - 1, -(-num_codes // 8)
    codes = codes.long()
    node = torch.repeat_interleave(torch.arange(num_nodes, device=codes.device), offsets[1:] - offsets[:-1])
    bit = torch.ones_like(codes, dtype=torch.uint8) << (codes & 7).to(torch.uint8)
    mask = torch.zeros(num_nodes * num_bytes, dtype=torch.uint8, device=codes.device)
    return mask.scatter_add_(0, node * num_bytes + (codes >> 3), bit).view(num_nodes, num_bytes)


def _no_bitmask(device: torch.device) -> Tensor:
    return torch.zeros(0, 0, dtype=torch.uint8, device=device)


def _running_count(is_kept: Tensor) -> Tensor:
    """How many come before each position, and all; int64 [N + 1]."""
    count = torch.zeros(len(is_kept) + 1, dtype=torch.int64, device=is_kept.device)
    torch.cumsum(is_kept, 0, out=count[1:])
    return count


def _shrunk(values: Tensor, *dtypes: torch.dtype) -> Tensor:
    """The same integers in the first of some widths that holds them all."""
    largest, smallest = int(values.max()), int(values.min())
    for dtype in dtypes:
        if torch.iinfo(dtype).min <= smallest and largest <= torch.iinfo(dtype).max:
            return values.to(dtype).contiguous()
    raise AssertionError(f"{largest} is beyond {dtypes[-1]}")
