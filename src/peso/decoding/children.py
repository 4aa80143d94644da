"""What a trie knows of the children of some beams, read in the way that suits their level.

A level of few nodes reads a row of a table per beam, a level of many children one bit per code, and a sparse level
gathers its rows of children; on a CPU, where looking costs nothing, only as far as the longest goes. Numbers of child
nodes are worked out for the chosen children only.

Shapes: B users, K beams, C codes, W children looked at per beam: its codes or its row.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from peso.decoding.bit_masks import WORD_BITS, WORD_SHIFT, bits_below, closed_of, num_set_bits
from peso.decoding.dense_level import DenseLevel
from peso.decoding.trie import Trie


class Children(Protocol):
    """The children of every user's beams."""

    @property
    def are_codes(self) -> bool:
        """Whether a child's column among the W is its code; otherwise it is its place under its parent."""
        ...

    def read(self, log_probabilities: Tensor, scores: Tensor) -> Tensor:
        """Score of each child: the log-probability of its code, and what its beam had before.

        Args:
            log_probabilities: float32 [B, K, C] of the level's codes.
            scores: float32 [B, K] of the beams.

        Returns:
            float32 [B, K, W], -inf in a column without a child; the caller's to overwrite.
        """
        ...

    def choose(self, slot: Tensor, parent: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and node numbers of some children; a slot without a child gives any code and any node that exists.

        Args:
            slot: int64 [B, K'], columns of [B, K W].
            parent: int64 [B, K'], the beams of these columns.
            place: int64 [B, K'], their columns among the beam's W.

        Returns:
            Two int64 [B, K'].
        """
        ...


def children_of(trie: Trie, level: int, nodes: Tensor) -> Children:
    """The children of some nodes.

    Args:
        trie: the catalogue.
        level: the nodes' level.
        nodes: int64 [B, K], node numbers of that level.
    """
    dense = trie.dense_levels[level]
    if dense is not None:
        return _Dense(dense, nodes)
    mask_rows = trie.mask_rows[level]
    if mask_rows is not None:
        rows = mask_rows.index_select(0, nodes.flatten()).view(*nodes.shape, -1, 2)
        return _Masked(trie.num_codes[level], rows, len(trie.codes[level]) - 1)
    return _rows_of(trie, level, nodes)


@dataclass(frozen=True, eq=False)
class _Dense:
    level: DenseLevel
    nodes: Tensor
    are_codes: bool = True

    def read(self, log_probabilities: Tensor, scores: Tensor) -> Tensor:
        closed, beam_score = self.level.closed, scores.unsqueeze(2)
        log_probabilities = _first(log_probabilities, closed.shape[1])
        if self.level.is_full:
            return log_probabilities + beam_score
        # Whole rows are copied, which is quicker than indexing.
        closed = closed.index_select(0, self.nodes.flatten()).view(*self.nodes.shape, -1)
        return closed.add_(log_probabilities).add_(beam_score)

    def choose(self, slot: Tensor, parent: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        num_nodes, num_codes = self.level.closed.shape
        cell = place if num_nodes == 1 else self.nodes.gather(1, parent).mul_(num_codes).add_(place)
        return place, cell if self.level.is_full else self.level.children.take(cell)


@dataclass(frozen=True, eq=False)
class _Masked:
    num_codes: int
    rows: Tensor  # int64 [B, K, words, 2]
    last_child: int
    are_codes: bool = True

    def read(self, log_probabilities: Tensor, scores: Tensor) -> Tensor:
        closed = _first(closed_of(self.rows.select(3, 0)), self.num_codes)
        return closed.add_(_first(log_probabilities, self.num_codes)).add_(scores.unsqueeze(2))

    def choose(self, slot: Tensor, parent: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        cell = (parent * self.rows.shape[2]).add_(place >> WORD_SHIFT)
        word, first_child = self.rows.flatten(1, 2).gather(1, cell.unsqueeze(2).expand(-1, -1, 2)).unbind(2)
        before = word & bits_below(cell.device).take(place & (WORD_BITS - 1))
        # Behind the last child there is none to count.
        return place, num_set_bits(before).add(first_child).clamp_(max=self.last_child)


@dataclass(frozen=True, eq=False)
class _Rows:
    numbers: Tensor  # integers [B, K, W], the children of each node, then any nodes
    codes: Tensor  # int64 [B, K, W]
    closed: Tensor  # float32 [B, K, W], 0 for a child and -inf behind the last one
    are_codes: bool = False

    def read(self, log_probabilities: Tensor, scores: Tensor) -> Tensor:
        return log_probabilities.gather(2, self.codes).add_(self.closed).add_(scores.unsqueeze(2))

    def choose(self, slot: Tensor, parent: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        return self.codes.flatten(1).gather(1, slot), self.numbers.flatten(1).gather(1, slot).long()


def _rows_of(trie: Trie, level: int, nodes: Tensor) -> _Rows:
    offsets, codes = trie.offsets[level], trie.codes[level]
    bounds = offsets.unfold(0, 2, 1).index_select(0, nodes.flatten())
    starts, ends = bounds.view(*nodes.shape, 2).unbind(2)
    minus_num_children = starts - ends
    is_cpu = nodes.device.type == "cpu"
    width = -int(minus_num_children.min()) if is_cpu else trie.max_children[level]
    place, closed_by_number = _row(width, starts.dtype, nodes.device)
    numbers = (starts.unsqueeze(2) + place).clamp_(max=len(codes) - 1)
    row_codes = codes.index_select(0, numbers.flatten()).view(numbers.shape).long()
    closed = closed_by_number.index_select(0, minus_num_children.add_(width).flatten()).view(numbers.shape)
    return _Rows(numbers, row_codes, closed)


def _first(values: Tensor, num_columns: int) -> Tensor:
    """The first columns of [B, K, ...]; a slice of all of them is not free."""
    return values if values.shape[2] == num_columns else values[..., :num_columns]


@lru_cache(maxsize=1024)
def _row(width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Places 0 : W, and float32 [W + 1, W], a view of 2 W numbers: row n is -inf in its last n columns and 0 before."""
    with torch.inference_mode(False):
        closed = torch.zeros(2 * width, device=device)
        closed[width:] = float("-inf")
        return torch.arange(width, dtype=dtype, device=device), closed.unfold(0, width, 1)
