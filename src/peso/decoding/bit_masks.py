"""One bit per node and code, as a trie keeps them for levels of many children, read in words of 64 codes.

Bit c % 64 of word c // 64 is set where code c leads to a child (on little-endian machines). The number of a child is
that of the first child of its word, plus the set bits below its own. A search reads both from one row per node, a table
that is derived when a search first needs it and no part of a trie's file. It is twice as large as the masks in whole
words; as these have at most eight bytes per item, it stays under 29 (under 17 where codes fill their words).
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

WORD_BITS, WORD_SHIFT = 64, 6
_LANE_BITS = 16
_BITS_OF_MINUS_INFINITY = -(1 << 23)  # of a float32, as an int32


def mask_rows(bitmask: Tensor, offsets: Tensor) -> Tensor:
    """The words of each node of a level, and beside each word its first child.

    Args:
        bitmask: uint8 [nodes, bytes]; bit i of byte j belongs to code 8 j + i.
        offsets: integers [nodes, and one more], where each node's children start; see `Trie.offsets`.

    Returns:
        int64 [nodes, words, 2]: a word, and a child.
    """
    # Outside inference mode, for the table outlives the search that first needs it.
    with torch.inference_mode(False):
        words = functional.pad(bitmask, (0, -bitmask.shape[1] % (WORD_BITS // 8))).view(torch.int64)
        num_children = num_set_bits(words.clone())
        first_child = num_children.cumsum(1).sub_(num_children).add_(offsets[:-1, None])
        return torch.stack([words, first_child], dim=2)


def closed_of(words: Tensor) -> Tensor:
    """What has to be added to the log-probabilities of all codes.

    Args:
        words: int64 [..., words].

    Returns:
        float32 [..., 64 words]: 0 where a code leads to a child and -inf where it does not.
    """
    closed_bits = words.bitwise_not().view(torch.int16).int()[..., None]
    # Each bit alone, times what makes it the bits of -inf: two plain integer steps instead of a slow select.
    alone, to_minus_infinity = _bits_alone(words.device)
    return (closed_bits & alone).mul_(to_minus_infinity).view(torch.float32).flatten(-2)


def num_set_bits(words: Tensor) -> Tensor:
    """How many bits are set in each int64, which may be overwritten; integers of its shape."""
    if words.device.type == "cpu":
        return torch.from_numpy(np.bitwise_count(words.numpy().view(np.uint64)))
    return counted_in_steps(words)


def counted_in_steps(words: Tensor) -> Tensor:
    """The same where no single step counts bits: neighbouring counts are added in pairs, fours, eights, then all."""
    words = words.sub_((words >> 1).bitwise_and_(0x5555555555555555))
    words = (words & 0x3333333333333333).add_((words >> 2).bitwise_and_(0x3333333333333333))
    words = words.add_(words >> 4).bitwise_and_(0x0F0F0F0F0F0F0F0F)
    return words.mul_(0x0101010101010101).bitwise_right_shift_(WORD_BITS - 8)


@lru_cache
def bits_below(device: torch.device) -> Tensor:
    """int64 [64]: number i has the bits below bit i."""
    with torch.inference_mode(False):
        return (1 << torch.arange(WORD_BITS, device=device)) - 1


@lru_cache
def _bits_alone(device: torch.device) -> tuple[Tensor, Tensor]:
    """int32 [16] each: bit i alone, and what it has to be multiplied with to become the bits of -inf."""
    with torch.inference_mode(False):
        alone = 1 << torch.arange(_LANE_BITS, dtype=torch.int32, device=device)
        return alone, torch.div(_BITS_OF_MINUS_INFINITY, alone, rounding_mode="trunc")
