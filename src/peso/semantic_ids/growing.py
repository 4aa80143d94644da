"""A last level that grows: more codes where new items outnumber the free ones, and not one old code moves.

Only the last level can grow: a code more at an earlier one would offer a neighbourhood in which nothing is known, one
more at the last gives every neighbourhood another place.

Shapes: N new items, D dimensions of the vectors, M levels, K and G codes of the last level before and added.
"""

from math import prod

import numpy as np

from peso.data.dataset import IntArray
from peso.seeding import derive_seed
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.quantizers.additive import AdditiveCodebook, squared_distances
from peso.semantic_ids.quantizers.base import Codebook
from peso.semantic_ids.quantizers.controls import HashCodebook
from peso.semantic_ids.quantizers.rq_kmeans import k_means, repeat_to

NUM_NEIGHBOURS = 3
"""Codes that a new one starts from."""


def with_room(codebook: Codebook, vectors: Vectors, taken: IntArray) -> Codebook:
    """The same codebook while it has enough codes, else one whose last level has grown.

    It grows by as many codes as the fullest prefix of M - 1 codes is short of, so that every new item may stay behind
    its own; items without a vector (zeros) may go anywhere. The new codewords are the centres of what the prefixes that
    are short leave of their items.

    Args:
        codebook: frozen; not changed.
        vectors: float32 [N, D], of the new items.
        taken: int64 [T, M], distinct codes of earlier items.

    Returns:
        A codebook that gives old codes their old meaning, with at least N free codes.
    """
    sizes = codebook.level_sizes
    if len(taken) + len(vectors) <= prod(sizes):
        return codebook
    nearest = codebook.encode(vectors)
    has_vector = vectors.any(axis=1)
    prefixes, place = np.unique(
        np.concatenate([taken[:, :-1], nearest[has_vector][:, :-1]]), axis=0, return_inverse=True
    )
    shortage = np.bincount(place.ravel(), minlength=len(prefixes)) - sizes[-1]
    anywhere = -(-(len(taken) + len(vectors)) // prod(sizes[:-1])) - sizes[-1]
    num_new = max(int(shortage.max(initial=0)), anywhere)
    if isinstance(codebook, HashCodebook):
        return codebook.with_last_level(sizes[-1] + num_new)
    assert isinstance(codebook, AdditiveCodebook)
    is_short = np.zeros(len(vectors), dtype=bool)
    is_short[has_vector] = shortage[place.ravel()[len(taken) :]] > 0
    crowd = np.flatnonzero(is_short) if is_short.any() else np.arange(len(vectors))
    left = codebook.latents(vectors[crowd]) - codebook.reconstruct(nearest[crowd], len(sizes) - 1)
    centres = k_means(left.astype(np.float32), num_new, derive_seed(0, "growing", sizes[-1]))
    return codebook.with_more_words(repeat_to(centres, num_new))


def neighbour_weights(codebook: Codebook, num_old: int) -> Vectors:
    """What each new code of the last level has of the old ones: weights that sum to 1, float32 [G, K].

    The nearest codewords count, by the inverse of their squared distance; without codewords all codes alike.

    Args:
        codebook: grown.
        num_old: K.
    """
    num_new = codebook.level_sizes[-1] - num_old
    if not isinstance(codebook, AdditiveCodebook):
        return np.full((num_new, num_old), 1 / num_old, dtype=np.float32)
    words = codebook.codewords[-1]
    distances = squared_distances(words[num_old:].astype(np.float64), words[:num_old]).clip(min=1e-12)
    order = np.argsort(distances, axis=1, kind="stable")[:, :NUM_NEIGHBOURS]
    near = 1 / np.take_along_axis(distances, order, axis=1)
    weights = np.zeros((num_new, num_old))
    np.put_along_axis(weights, order, near / near.sum(axis=1, keepdims=True), axis=1)
    return weights.astype(np.float32)
