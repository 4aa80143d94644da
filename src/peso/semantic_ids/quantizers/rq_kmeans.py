"""Residual k-means: the centres of the vectors, then of what the nearest centre leaves, level after level."""

import warnings

import numpy as np
from numpy.typing import NDArray

from peso.seeding import derive_seed
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.quantizers.additive import AdditiveCodebook, squared_distances
from peso.semantic_ids.quantizers.base import Fit

_SAMPLES_PER_CODE = 256
_MAX_ITERATIONS = 100
_NUM_NUMPY_SEEDS = 2**32


class ResidualKMeans:
    """Learns an additive codebook in the space of the vectors."""

    def fit(self, vectors: Vectors, popularity: NDArray[np.float64], level_sizes: tuple[int, ...], seed: int) -> Fit:
        """See `Quantizer.fit`; popularity is not looked at."""
        residuals = vectors.copy()
        codewords, num_distinct = [], []
        for level, size in enumerate(level_sizes):
            centres = k_means(residuals, size, derive_seed(seed, "rq-kmeans", level))
            num_distinct.append(len(centres))
            codewords.append(repeat_to(centres, size))
            residuals -= centres[squared_distances(residuals.astype(np.float64), centres).argmin(axis=1)]
        codebook = AdditiveCodebook(codewords, num_distinct)
        return Fit(codebook, codebook.encode(vectors))


def k_means(vectors: Vectors, num_centres: int, seed: int) -> Vectors:
    """Centres of Lloyd's algorithm from a k-means++ start.

    Args:
        vectors: float32 [N, D]; a random sample of 256 per centre stands for more.
        num_centres: K.
        seed: of sample and start.

    Returns:
        float32 [min(K, distinct rows), D].
    """
    from sklearn.cluster import KMeans  # takes seconds, and wrong input is refused before
    from sklearn.exceptions import ConvergenceWarning

    random = np.random.default_rng(seed)
    most = _SAMPLES_PER_CODE * num_centres
    sample = vectors if len(vectors) <= most else vectors[random.choice(len(vectors), most, replace=False)]
    distinct = np.unique(sample, axis=0)
    if len(distinct) <= num_centres:
        return np.ascontiguousarray(distinct)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # rows that differ by rounding only may share a centre
        fitted = KMeans(num_centres, n_init=1, max_iter=_MAX_ITERATIONS, random_state=seed % _NUM_NUMPY_SEEDS).fit(
            sample
        )
    return np.ascontiguousarray(fitted.cluster_centers_, dtype=np.float32)


def repeat_to(centres: Vectors, size: int) -> Vectors:
    """The centres, then copies of them in turn.

    Args:
        centres: [C, D], C at most `size`.
        size: rows wanted.
    """
    return centres[np.arange(size) % len(centres)]
