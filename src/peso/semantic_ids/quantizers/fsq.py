"""Finite scalar quantization (extra `fsq`): codes are places on a fixed grid, only the network before it learns.

Source: Mentzer and others, "Finite Scalar Quantization: VQ-VAE Made Simple", 2023, by `vector-quantize-pytorch`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from peso.errors import ConfigError
from peso.seeding import derive_seed
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.base import Fit
from peso.semantic_ids.quantizers.networks import build_network, frozen_layers, mean_square, unit_scale

_HIDDEN_WIDTHS = (256, 128)
_FEWEST_VALUES, _MOST_VALUES = 3, 8
_BATCH_VECTORS = 256
_LEARNING_RATE = 2e-3
_PASSES = 150
_MOST_STEPS = 20_000


class FiniteScalarQuantizer:
    """Trains an autoencoder around the library's quantization; a level is a few dimensions of its grid."""

    def fit(self, vectors: Vectors, popularity: NDArray[np.float64], level_sizes: tuple[int, ...], seed: int) -> Fit:
        """See `Quantizer.fit`; popularity is not looked at.

        Raises:
            ConfigError: the extra is not installed, or a level's size is no product of numbers from 3 to 8.
        """
        try:
            from vector_quantize_pytorch import FSQ
        except ImportError:
            raise ConfigError("the fsq quantizer needs an extra: pip install 'peso-rec[fsq]'.") from None
        grids = [grid_of(size) for size in level_sizes]
        values = [count for grid in grids for count in grid]
        mean, scale = vectors.mean(axis=0), unit_scale(vectors)
        inputs_ND = torch.from_numpy((vectors - mean) * scale)
        widths = (vectors.shape[1], *_HIDDEN_WIDTHS, len(values))
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "fsq"))
            encoder, decoder = build_network(widths), build_network(widths[::-1])
            # The joint codebook of all levels would not fit memory, and is not needed.
            _train(encoder, FSQ(values, return_indices=False), decoder, inputs_ND)
        codebook = AdditiveCodebook(
            grid_codewords(grids), layers=frozen_layers(encoder, mean, scale), values_per_dimension=values
        )
        return Fit(codebook, codebook.encode(vectors))


def grid_of(size: int) -> list[int]:
    """As few numbers from 3 to 8 as multiply to a level's size, larger ones first.

    Raises:
        ConfigError: there are none.
    """
    found = _factors(size)
    if found is None:
        raise ConfigError(
            f"the fsq quantizer needs levels whose size is a product of numbers from {_FEWEST_VALUES} to "
            f"{_MOST_VALUES}, such as 64 or 256, not {size}."
        )
    return found


def _factors(size: int) -> list[int] | None:
    if _FEWEST_VALUES <= size <= _MOST_VALUES:
        return [size]
    for first in range(_MOST_VALUES, _FEWEST_VALUES - 1, -1):
        rest = _factors(size // first) if size % first == 0 and size > first else None
        if rest is not None:
            return [first, *rest]
    return None


def grid_codewords(grids: list[list[int]]) -> list[Vectors]:
    """Every place of each level's grid, zero in the dimensions of other levels.

    Args:
        grids: values per dimension, per level; a dimension with L values has (i - L // 2) / (L // 2), i from 0.

    Returns:
        float32 [K, all dimensions] per level.
    """
    num_dimensions, first, codewords = sum(map(len, grids)), 0, []
    for grid in grids:
        places = np.indices(grid).reshape(len(grid), -1).T
        halves = np.array(grid) // 2
        words = np.zeros((len(places), num_dimensions), dtype=np.float32)
        words[:, first : first + len(grid)] = (places - halves) / halves
        codewords.append(words)
        first += len(grid)
    return codewords


def _train(encoder: nn.Module, quantization: nn.Module, decoder: nn.Module, inputs_ND: torch.Tensor) -> None:
    steps_per_pass = -(-len(inputs_ND) // _BATCH_VECTORS)
    num_passes = max(1, min(_PASSES, _MOST_STEPS // steps_per_pass))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_passes)
    for _ in range(num_passes):
        for rows in torch.randperm(len(inputs_ND)).split(_BATCH_VECTORS):
            optimizer.zero_grad()
            quantized_BX, _ = quantization(encoder(inputs_ND[rows])[:, None])
            mean_square(decoder(quantized_BX[:, 0]) - inputs_ND[rows]).backward()
            optimizer.step()
        schedule.step()
