"""Vectors from what users took near what in the base block: no text at all, and nothing of later blocks.

With C the symmetric counts of items that stand up to five places apart in one user's sequence, M is their positive
pointwise mutual information max(0, log(C_ij sum(C) / (C_i. C_.j))) and U S V^T its truncated SVD. An item's vector is
its row of (U + V) sqrt(S) / 2, word and context vectors added as Levy, Goldberg and Dagan (2015) do: products of
vectors are then the positive semidefinite part of M, so that items which are taken together are alike, not only items
which are taken with the same others.
"""

import numpy as np
from scipy.sparse import coo_array, csr_array
from sklearn.utils.extmath import randomized_svd

from peso.data.dataset import Dataset
from peso.errors import DataError
from peso.memory.neighbours import count_neighbours
from peso.seeding import derive_seed
from peso.semantic_ids.encoders.base import unit_rows
from peso.semantic_ids.encoders.precomputed import PrecomputedEncoder
from peso.semantic_ids.frozen import Vectors

_NUM_DIMENSIONS = 64
_DISTANCE_WEIGHTS = (1.0, 0.5, 1 / 3, 0.25, 0.2)
_NUM_NUMPY_SEEDS = 2**32


def fit_collaborative(dataset: Dataset, seed: int) -> PrecomputedEncoder:
    """Vectors of the items of block 0, looked up by id; any other item gets zeros.

    Args:
        dataset: the events; only those of block 0 are looked at.
        seed: of the randomised SVD.

    Raises:
        DataError: no user has two events in block 0.
    """
    information = _positive_information(_co_occurrences(dataset))
    if information.nnz == 0:
        raise DataError("no two items of block 0 were taken by one user, so there is nothing to learn; encode texts.")
    num_dimensions = min(_NUM_DIMENSIONS, dataset.num_items)
    random_state = derive_seed(seed, "collaborative") % _NUM_NUMPY_SEEDS
    left, singular_values, right = randomized_svd(information, num_dimensions, random_state=random_state)
    vectors: Vectors = unit_rows(((left + right.T) / 2 * np.sqrt(singular_values)).astype(np.float32))
    is_known = np.diff(information.indptr) > 0
    vectors[~is_known] = 0  # rounding must not give a stranger a direction
    known = np.flatnonzero(is_known)
    return PrecomputedEncoder([dataset.item_ids[item] for item in known.tolist()], vectors[known])


def _co_occurrences(dataset: Dataset) -> csr_array:
    base_events = np.flatnonzero(dataset.event_block == 0)
    neighbours = count_neighbours(dataset, base_events, _DISTANCE_WEIGHTS, backward=1.0, decay=1.0)
    rows = np.repeat(np.arange(dataset.num_items), np.diff(neighbours.offsets))
    shape = (dataset.num_items, dataset.num_items)
    return coo_array((neighbours.weights, (rows, neighbours.items)), shape=shape).tocsr()


def _positive_information(counts: csr_array) -> csr_array:
    entries = counts.tocoo()
    total = entries.data.sum()
    marginals = counts.sum(axis=1)
    rows, columns = entries.coords
    information = np.log(entries.data * total / (marginals[rows] * marginals[columns]))
    positive = coo_array((np.maximum(information, 0), (rows, columns)), shape=counts.shape).tocsr()
    positive.eliminate_zeros()
    return positive
