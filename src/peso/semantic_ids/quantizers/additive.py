"""Codebooks whose codewords add up: a vector is approximated by one codeword per level, each for what is left.

Residual k-means, RQ-VAE, product quantization (codewords that are zero outside their part) and finite scalar
quantization (codewords on a grid) all are of this kind, so one frozen format and one way of encoding serve them.

Shapes: N items, D dimensions of the vectors, L of the latents, M levels, K_m codes of level m.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import IntArray
from peso.semantic_ids.frozen import FrozenState, Vectors

Layer = tuple[Vectors, Vectors]
"""Weight float32 [O, I] and bias float32 [O] of a linear layer."""

_ROWS_AT_ONCE = 8192
Float64 = NDArray[np.float64]


class AdditiveCodebook:
    """Latents of a network (the vectors themselves where there is none), and codewords that add up to them."""

    kind = "additive"

    def __init__(
        self,
        codewords: Sequence[Vectors],
        num_distinct: Sequence[int] | None = None,
        layers: Sequence[Layer] = (),
        values_per_dimension: Sequence[int] = (),
    ) -> None:
        """Builds a fitted codebook.

        Args:
            codewords: float32 [K_m, L] per level.
            num_distinct: per level, how many codewords from the first on differ; the rest are copies that only serve
                items of which there are too many alike. All, if None.
            layers: the network from vectors to latents, with rectified units between layers.
            values_per_dimension: where the codewords are a grid, its values along each of the L dimensions, into whose
                range latents are squashed.
        """
        self.codewords = tuple(codewords)
        self.num_distinct = tuple(num_distinct or map(len, codewords))
        self._layers, self._values = tuple(layers), tuple(values_per_dimension)

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """See `Codebook.level_sizes`."""
        return tuple(map(len, self.codewords))

    def with_codewords(self, codewords: Sequence[Vectors]) -> "AdditiveCodebook":
        """The same network with other codewords of the same shapes."""
        return AdditiveCodebook(codewords, self.num_distinct, self._layers, self._values)

    def with_more_words(self, words: Vectors) -> "AdditiveCodebook":
        """The same codebook with more codewords at its last level, float32 [G, L], behind those it has.

        A codebook whose last level holds copies keeps its nearest words: the new ones then only take what is crowded.
        """
        *codewords, last = self.codewords
        *num_distinct, distinct = self.num_distinct
        has_copies = distinct < len(last)
        return AdditiveCodebook(
            [*codewords, np.concatenate([last, words])],
            [*num_distinct, distinct if has_copies else len(last) + len(words)],
            self._layers,
            self._values,
        )

    def latents(self, vectors: Vectors) -> Float64:
        """What the codewords approximate, float64 [N, L].

        Args:
            vectors: float32 [N, D].
        """
        latents = vectors.astype(np.float64)
        for number, (weight, bias) in enumerate(self._layers):
            if number:
                latents = np.maximum(latents, 0)
            latents = latents @ weight.T.astype(np.float64) + bias
        return squash(latents, self._values) if self._values else latents

    def encode(self, vectors: Vectors) -> IntArray:
        """Level after level, the codeword nearest to what the levels before it leave; see `Codebook.encode`."""
        codes = np.empty((len(vectors), len(self.codewords)), dtype=np.int64)
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            residuals = self.latents(vectors[rows])
            for level, words in enumerate(self.codewords):
                distinct = words[: self.num_distinct[level]]
                codes[rows, level] = squared_distances(residuals, distinct).argmin(axis=1)
                residuals -= words[codes[rows, level]]
        return codes

    def reconstruct(self, codes: IntArray, num_levels: int) -> Float64:
        """The sum of the codewords of the first levels, float64 [N, L].

        Args:
            codes: int64 [N, M].
            num_levels: 0 to M.
        """
        total = np.zeros((len(codes), self.codewords[0].shape[1]))
        for level in range(num_levels):
            total += self.codewords[level][codes[:, level]]
        return total

    def squared_errors(self, vectors: Vectors, codes: IntArray, num_levels: int) -> Float64:
        """Squared distance of every item's latent to the sum of its first codewords, float64 [N].

        Args:
            vectors: float32 [N, D].
            codes: int64 [N, M].
            num_levels: 0 to M.
        """
        return ((self.latents(vectors) - self.reconstruct(codes, num_levels)) ** 2).sum(axis=1)

    def state(self) -> FrozenState:
        """See `Codebook.state`."""
        tensors = {f"codewords_{level}": words for level, words in enumerate(self.codewords)}
        for number, (weight, bias) in enumerate(self._layers):
            tensors |= {f"weight_{number}": weight, f"bias_{number}": bias}
        facts = {
            "kind": self.kind,
            "num_distinct": list(self.num_distinct),
            "num_layers": len(self._layers),
            "values_per_dimension": list(self._values),
        }
        return FrozenState(facts, tensors)

    @classmethod
    def from_state(cls, state: FrozenState) -> "AdditiveCodebook":
        """The codebook that gave this state."""
        num_distinct = state.facts["num_distinct"]
        return cls(
            [state.tensors[f"codewords_{level}"] for level in range(len(num_distinct))],
            num_distinct,
            [(state.tensors[f"weight_{n}"], state.tensors[f"bias_{n}"]) for n in range(state.facts["num_layers"])],
            state.facts["values_per_dimension"],
        )


def squash(latents: Float64, values_per_dimension: Sequence[int]) -> Float64:
    """Latents within the range of a grid, so that the nearest of its places is found by rounding.

    With L values along a dimension and h = (L - 1) 1.001 / 2, z becomes (tanh(z + artanh(o / h)) h - o) / (L // 2),
    where o is a half for even L and 0 for odd L.

    Source: Mentzer and others, 2023, the function `bound`.

    Args:
        latents: float64 [N, L].
        values_per_dimension: at least 3 each, length L.
    """
    values = np.array(values_per_dimension, dtype=np.float64)
    half = (values - 1) * 1.001 / 2
    offset = np.where(values % 2 == 0, 0.5, 0.0)
    return (np.tanh(latents + np.arctanh(offset / half)) * half - offset) / (values // 2)


def squared_distances(rows: Float64, words: Vectors) -> Float64:
    """Squared Euclidean distances, float64 [N, K], from below perhaps -1e-15 by rounding.

    Args:
        rows: float64 [N, L].
        words: [K, L].
    """
    wide = words.astype(np.float64)
    return (rows**2).sum(axis=1)[:, None] - 2 * rows @ wide.T + (wide**2).sum(axis=1)
