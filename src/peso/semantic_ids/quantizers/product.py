"""Product quantization: the dimensions are dealt to the levels, and each level is k-means of its own."""

import numpy as np
from numpy.typing import NDArray

from peso.errors import DataError
from peso.seeding import derive_seed
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.base import Fit
from peso.semantic_ids.quantizers.rq_kmeans import k_means, repeat_to


class ProductKMeans:
    """Levels that know nothing of each other: no code refines another, so prefixes are no neighbourhoods."""

    def fit(self, vectors: Vectors, popularity: NDArray[np.float64], level_sizes: tuple[int, ...], seed: int) -> Fit:
        """See `Quantizer.fit`; popularity is not looked at.

        Raises:
            DataError: there are fewer dimensions than levels.
        """
        num_dimensions, num_levels = vectors.shape[1], len(level_sizes)
        if num_dimensions < num_levels:
            raise DataError(
                f"vectors of {num_dimensions} dimensions cannot be dealt to {num_levels} levels; "
                "choose fewer levels or another quantizer."
            )
        codewords, num_distinct = [], []
        for level, size in enumerate(level_sizes):
            # Dealt in turn, as the first dimensions of a singular value decomposition carry most of the variance.
            own = slice(level, None, num_levels)
            centres = k_means(vectors[:, own], size, derive_seed(seed, "product", level))
            num_distinct.append(len(centres))
            words = np.zeros((size, num_dimensions), dtype=np.float32)
            words[:, own] = repeat_to(centres, size)
            codewords.append(words)
        codebook = AdditiveCodebook(codewords, num_distinct)
        return Fit(codebook, codebook.encode(vectors))
