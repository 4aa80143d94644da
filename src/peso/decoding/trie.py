"""A trie over the codes of the items that may be recommended, as flat arrays.

The nodes of each level are numbered in lexicographic order of their prefix, so the children of one node are
consecutive: node j of level m has children offsets[m][j] : offsets[m][j + 1] of level m + 1, and a leaf is an item.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peso.errors import DataError


@dataclass(frozen=True, eq=False)
class Trie:
    """Prefixes of a catalogue's codes in compressed sparse rows.

    Attributes:
        offsets: per level m in 0..M-1, int64 [nodes of level m + 1]; level 0 is the root alone.
        codes: per level m, int64 [nodes of level m + 1]: the code that leads to each node of the next level.
        leaf_items: int64 [N]: the item at each node of level M.
    """

    offsets: tuple[Tensor, ...]
    codes: tuple[Tensor, ...]
    leaf_items: Tensor

    @property
    def num_levels(self) -> int:
        """Codes per item M."""
        return len(self.codes)

    @property
    def num_items(self) -> int:
        """Items that can be named."""
        return len(self.leaf_items)

    def __post_init__(self) -> None:
        """Checks that the arrays fit together."""
        assert len(self.offsets) == len(self.codes)
        assert len(self.codes[-1]) == len(self.leaf_items)


def build_trie(codes: NDArray[np.int64], items: NDArray[np.int64]) -> Trie:
    """The trie of some items.

    Args:
        codes: int64 [N, M], the unique codes of every item.
        items: int64 [n], which items may be named.

    Raises:
        DataError: no item, or two items with the same codes.
    """
    if len(items) == 0:
        raise DataError("the catalogue to recommend from is empty; allow at least one item.")
    chosen = codes[items]
    order = np.lexsort(chosen.T[::-1])
    chosen, items = chosen[order], items[order]
    is_new = np.zeros(len(items), dtype=bool)
    is_new[0] = True
    node_of_row = np.zeros(len(items), dtype=np.int64)
    offsets, edge_codes = [], []
    for level in range(codes.shape[1]):
        is_new[1:] |= chosen[1:, level] != chosen[:-1, level]
        first_rows = np.flatnonzero(is_new)
        parents = node_of_row[first_rows]
        offsets.append(np.searchsorted(parents, np.arange(int(parents[-1]) + 2)))
        edge_codes.append(chosen[first_rows, level])
        node_of_row = np.cumsum(is_new) - 1
    if len(edge_codes[-1]) != len(items):
        twin = int(np.flatnonzero(~is_new)[0])
        raise DataError(f"items number {items[twin - 1]} and {items[twin]} share all their codes; make codes unique.")
    return Trie(
        tuple(torch.from_numpy(values.astype(np.int64)) for values in offsets),
        tuple(torch.from_numpy(values) for values in edge_codes),
        torch.from_numpy(items),
    )


@dataclass(frozen=True, eq=False)
class Children:
    """All children of a batch of nodes, one after the other.

    Attributes:
        parent: int64 [E], which of the given nodes each child belongs to (its position in the flattened input).
        node: int64 [E], the child's number in its own level.
        code: int64 [E], the code that leads to it.
    """

    parent: Tensor
    node: Tensor
    code: Tensor


def children_of(trie: Trie, level: int, nodes: Tensor) -> Children:
    """The children of some nodes, by one gather.

    Args:
        trie: the catalogue.
        level: the nodes' level.
        nodes: int64 [n], node numbers.
    """
    starts = trie.offsets[level][nodes]
    counts = trie.offsets[level][nodes + 1] - starts
    parent = torch.repeat_interleave(torch.arange(len(nodes)), counts)
    firsts = torch.cumsum(counts, 0) - counts
    node = torch.arange(len(parent)) - firsts[parent] + starts[parent]
    return Children(parent, node, trie.codes[level][node])
