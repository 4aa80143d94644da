"""Codes for items that come after others: the nearest that is free, and nobody else's moves."""

import numpy as np

from peso.data.dataset import IntArray
from peso.semantic_ids.assignment import make_unique
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.matching import match_unique
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.base import Codebook


def settle(codebook: Codebook, vectors: Vectors, nearest: IntArray, taken: IntArray) -> IntArray:
    """Gives new items codes of their own.

    Args:
        codebook: with codewords, the least distortion decides; without, the next free code.
        vectors: float32 [N, D].
        nearest: int64 [N, M], the codebook's codes; rows may repeat.
        taken: int64 [T, M], distinct codes of earlier items.

    Returns:
        int64 [N, M], distinct, and none of those taken.

    Raises:
        DataError: there are more items than codes.
    """
    if isinstance(codebook, AdditiveCodebook):
        return match_unique(codebook, vectors, nearest, taken).codes
    together = np.concatenate([taken, nearest])  # what stands first keeps its code
    return make_unique(together, codebook.level_sizes, np.arange(len(together)))[len(taken) :]


def settle_by_blocks(
    codebook: Codebook, vectors: Vectors, nearest: IntArray, first_blocks: IntArray, codes: IntArray, kept: IntArray
) -> IntArray:
    """Gives all items but some codes of their own, block after block.

    Args:
        codebook: see `settle`.
        vectors: float32 [N, D].
        nearest: int64 [N, M], the codebook's codes.
        first_blocks: block in which each item occurs first, int64 [N].
        codes: int64 [K, M], codes that stay, distinct.
        kept: int64 [K], which item has each of them; -1 for an item that is none of these.

    Returns:
        int64 [N, M], distinct.

    Raises:
        DataError: there are more items than codes.
    """
    unique, is_kept = nearest.copy(), np.zeros(len(nearest), dtype=bool)
    here = kept >= 0
    unique[kept[here]], is_kept[kept[here]] = codes[here], True
    taken = codes
    for block in np.unique(first_blocks[~is_kept]).tolist():
        new = np.flatnonzero((first_blocks == block) & ~is_kept)
        unique[new] = settle(codebook, vectors[new], nearest[new], taken)
        taken = np.concatenate([taken, unique[new]])
    return unique
