"""Words of an item's text, weighed by rarity and reduced by a truncated SVD: no download, seconds on a CPU."""

import numpy as np
from scipy.sparse import spmatrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from peso.data.dataset import IntArray
from peso.errors import DataError
from peso.seeding import derive_seed
from peso.semantic_ids.encoders.base import ItemContents, unit_rows
from peso.semantic_ids.frozen import FrozenState, Vectors

_NUM_DIMENSIONS = 128
_MAX_TERMS = 20_000
_NUM_NUMPY_SEEDS = 2**32


class TfidfEncoder:
    """Single words and pairs of words; rows are scaled to length 1 after the projection."""

    kind = "tfidf"

    def __init__(self, terms: list[str], inverse_frequencies: Vectors, components: Vectors) -> None:
        """Builds a fitted encoder.

        Args:
            terms: words and pairs of words, length V.
            inverse_frequencies: log inverse document frequency plus one of each, [V].
            components: the SVD's right singular vectors, float32 [D, V].
        """
        self._terms, self._inverse_frequencies, self._components = terms, inverse_frequencies, components
        self._vectorizer = _vectorizer({term: number for number, term in enumerate(terms)})
        self._vectorizer.idf_ = inverse_frequencies.astype(np.float64)

    def encode(self, items: ItemContents) -> Vectors:
        """See `Encoder.encode`."""
        if not len(items):
            return np.zeros((0, len(self._components)), dtype=np.float32)
        weights: spmatrix = self._vectorizer.transform(items.texts)
        return unit_rows(weights @ self._components.T)

    def state(self) -> FrozenState:
        """See `Encoder.state`."""
        return FrozenState(
            {"kind": self.kind, "terms": self._terms},
            {"inverse_frequencies": self._inverse_frequencies, "components": self._components},
        )

    @classmethod
    def from_state(cls, state: FrozenState) -> "TfidfEncoder":
        """The encoder that gave this state."""
        return cls(state.facts["terms"], state.tensors["inverse_frequencies"], state.tensors["components"])


def fit_tfidf(items: ItemContents, fit_on: IntArray, seed: int) -> TfidfEncoder:
    """Learns terms, their rarity and the projection.

    Args:
        items: all items.
        fit_on: numbers of the items to learn from, int64.
        seed: of the randomised SVD.

    Raises:
        DataError: these items have no word that occurs in two of them.
    """
    texts = [items.texts[item] for item in fit_on.tolist()]
    vectorizer = _vectorizer(None)
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError:
        raise DataError(
            f"the texts of {len(texts):,} items share no word, so the tfidf encoder has nothing to compare; "
            "import titles or texts, or choose --encoder collaborative or precomputed."
        ) from None
    num_dimensions = min(_NUM_DIMENSIONS, *weights.shape)
    random = np.random.RandomState(derive_seed(seed, "tfidf") % _NUM_NUMPY_SEEDS)
    svd = TruncatedSVD(num_dimensions, random_state=random).fit(weights)
    return TfidfEncoder(
        vectorizer.get_feature_names_out().tolist(),
        vectorizer.idf_.astype(np.float32),
        np.ascontiguousarray(svd.components_, dtype=np.float32),
    )


def _vectorizer(vocabulary: dict[str, int] | None) -> TfidfVectorizer:
    # A word of one item says nothing about which items are alike.
    return TfidfVectorizer(
        vocabulary=vocabulary,
        ngram_range=(1, 2),
        sublinear_tf=True,
        min_df=2,
        max_features=_MAX_TERMS,
        dtype=np.float32,
    )
