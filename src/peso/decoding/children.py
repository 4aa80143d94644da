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
from torch.nn import functional

from peso.decoding.dense_level import DenseLevel
from peso.decoding.trie import Trie

_BITS_OF_MINUS_INFINITY = -(1 << 23)  # of a float32, as an int32
_WORD_BITS, _HALF_WORD_BITS = 64, 32


class Children(Protocol):
    """The children of every user's beams."""

    @property
    def are_codes(self) -> bool:
        """Whether a child's column among the W is its code; otherwise it is its place under its parent."""
        ...

    def read(self, log_probabilities: Tensor) -> Tensor:
        """Log-probability of each child.

        Args:
            log_probabilities: float32 [B, K, C] of the level's codes.

        Returns:
            float32 [B, K, W], -inf in a column without a child; the caller's to overwrite.
        """
        ...

    def choose(self, slot: Tensor, parent: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and node numbers of some children; slots without a child give any.

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
    if trie.bitmasks[level].numel():
        words = _mask_words(trie.bitmasks[level], nodes.flatten())
        return _Masked(trie.offsets[level], trie.num_codes[level], nodes, words)
    return _rows_of(trie, level, nodes)


@dataclass(frozen=True, eq=False)
class _Dense:
    level: DenseLevel
    nodes: Tensor
    are_codes: bool = True

    def read(self, log_probabilities: Tensor) -> Tensor:
        closed = self.level.closed
        log_probabilities = log_probabilities[..., : closed.shape[1]]
        if len(closed) == 1:
            return log_probabilities + closed
        # Whole rows are copied, which is quicker than indexing.
        return closed.index_select(0, self.nodes.flatten()).view(*self.nodes.shape, -1).add_(log_probabilities)

    def choose(self, slot: Tensor, parent: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        cell = self.nodes.gather(1, parent).mul_(self.level.closed.shape[1]).add_(place)
        return place, self.level.children.take(cell)


@dataclass(frozen=True, eq=False)
class _Masked:
    offsets: Tensor
    num_codes: int
    nodes: Tensor
    words: Tensor  # int64 [B K, words]
    are_codes: bool = True

    def read(self, log_probabilities: Tensor) -> Tensor:
        closed_bits = self.words.bitwise_not().view(torch.int32).view(*self.nodes.shape, -1, 1)
        # Each bit in turn becomes the sign, and the sign is spread over the bits of -inf: plain integer steps.
        spread = closed_bits << _to_sign(closed_bits.device)
        closed = spread.bitwise_right_shift_(_HALF_WORD_BITS - 1).bitwise_and_(_BITS_OF_MINUS_INFINITY)
        closed = closed.view(torch.float32).flatten(2)[..., : self.num_codes]
        return closed.add_(log_probabilities[..., : self.num_codes])

    def choose(self, slot: Tensor, parent: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        num_users, num_beams = self.nodes.shape
        first_beam = torch.arange(0, num_users * num_beams, num_beams, device=parent.device)[:, None]
        words = self.words.index_select(0, (parent + first_beam).flatten())
        before = words.bitwise_and_(_bits_before(words.shape[1], words.device).index_select(0, place.flatten()))
        starts = self.offsets.take(self.nodes.gather(1, parent))
        return place, _num_set_bits(before).sum(dim=1).view(place.shape).add_(starts)


@dataclass(frozen=True, eq=False)
class _Rows:
    starts: Tensor  # integers [B, K], the first child of each node
    codes: Tensor  # int64 [B, K, W]
    closed: Tensor  # float32 [B, K, W], 0 for a child and -inf behind the last one
    are_codes: bool = False

    def read(self, log_probabilities: Tensor) -> Tensor:
        return log_probabilities.gather(2, self.codes).add_(self.closed)

    def choose(self, slot: Tensor, parent: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        return self.codes.flatten(1).gather(1, slot), self.starts.gather(1, parent) + place


def _rows_of(trie: Trie, level: int, nodes: Tensor) -> _Rows:
    offsets, codes = trie.offsets[level], trie.codes[level]
    starts = offsets.take(nodes)
    last = offsets.take(nodes + 1) - starts - 1
    is_cpu = nodes.device.type == "cpu"
    width = int(last.max()) + 1 if is_cpu else trie.max_children[level]
    place = torch.arange(width, dtype=torch.int32, device=nodes.device)
    numbers = (starts[..., None] + place).clamp_(max=len(codes) - 1)
    row_codes = codes.index_select(0, numbers.flatten()).view(numbers.shape).long()
    # The sign of (last place - place), spread over the bits of -inf: plain integer steps instead of a slow select.
    closed = last.int()[..., None] - place
    closed = closed.bitwise_right_shift_(_HALF_WORD_BITS - 1).bitwise_and_(_BITS_OF_MINUS_INFINITY)
    return _Rows(starts, row_codes, closed.view(torch.float32))


def _mask_words(bitmask: Tensor, nodes: Tensor) -> Tensor:
    """The bit masks of some nodes [n], int64 [n, words]: code c is bit c % 64 of word c // 64 (on little-endian)."""
    rows = bitmask.index_select(0, nodes)
    spare_bytes = -rows.shape[1] % (_WORD_BITS // 8)
    return (functional.pad(rows, (0, spare_bytes)) if spare_bytes else rows).view(torch.int64)


def _num_set_bits(words: Tensor) -> Tensor:
    """Of each int64, which is overwritten; neighbouring counts are added in pairs, fours, eights, and then all."""
    words = words.sub_((words >> 1).bitwise_and_(0x5555555555555555))
    words = (words & 0x3333333333333333).add_((words >> 2).bitwise_and_(0x3333333333333333))
    words = words.add_(words >> 4).bitwise_and_(0x0F0F0F0F0F0F0F0F)
    return words.mul_(0x0101010101010101).bitwise_right_shift_(_WORD_BITS - 8)


@lru_cache
def _to_sign(device: torch.device) -> Tensor:
    """int32 [32]: how far left each bit of an int32 is from the sign."""
    with torch.inference_mode(False):
        return torch.arange(_HALF_WORD_BITS - 1, -1, -1, dtype=torch.int32, device=device)


@lru_cache
def _bits_before(num_words: int, device: torch.device) -> Tensor:
    """int64 [64 words, words]: row c has the bits of the codes below c."""
    with torch.inference_mode(False):
        num_below = torch.arange(_WORD_BITS * num_words, device=device)[:, None]
        num_below = num_below - torch.arange(0, _WORD_BITS * num_words, _WORD_BITS, device=device)
        all_bits = torch.full_like(num_below, -1)
        lower = (1 << num_below.clamp(0, _WORD_BITS - 1)) - 1
        return torch.where(num_below >= _WORD_BITS, all_bits, lower)
