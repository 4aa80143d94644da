"""RQ-VAE, the paper's tokenizer: an autoencoder whose latents are sums of codewords, trained by gradient descent.

First the autoencoder alone learns for a few passes; then residual k-means of its latents gives the first codewords;
then all train together. After every pass, codes that no vector took are put where some vector's residual is.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peso.seeding import derive_seed
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.base import Fit
from peso.semantic_ids.quantizers.networks import frozen_layers, unit_scale
from peso.semantic_ids.quantizers.rq_kmeans import ResidualKMeans
from peso.semantic_ids.quantizers.rqvae_model import RqVae
from peso.types import GradientName

log = logging.getLogger(__name__)

_HIDDEN_WIDTHS = (256, 128)
_LATENT_WIDTH = 32
_BATCH_VECTORS = 256
_LEARNING_RATE = 2e-3
_WARM_UP_PASSES = 20
_PASSES = 200
_MOST_STEPS = 20_000  # of both phases; a large catalogue needs fewer passes
_REVIVING_SHARE = 0.75  # of the passes; in the last quarter codewords settle


class RqVaeQuantizer:
    """Trains an `RqVae` and keeps its encoder and codewords."""

    def __init__(self, gradient: GradientName) -> None:
        """Chooses how gradients pass the quantization.

        Args:
            gradient: the estimator.
        """
        self._gradient: GradientName = gradient

    def fit(self, vectors: Vectors, popularity: NDArray[np.float64], level_sizes: tuple[int, ...], seed: int) -> Fit:
        """See `Quantizer.fit`; popularity is not looked at."""
        mean, scale = vectors.mean(axis=0), unit_scale(vectors)
        inputs_ND = torch.from_numpy((vectors - mean) * scale)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "rq-vae"))
            model = RqVae((vectors.shape[1], *_HIDDEN_WIDTHS, _LATENT_WIDTH), level_sizes, self._gradient)
            _warm_up(model, inputs_ND)
            _set_codewords(model, inputs_ND, level_sizes, seed)
            _train(model, inputs_ND)
        codewords = [words.detach().numpy() for words in model.codebooks]
        codebook = AdditiveCodebook(codewords, layers=frozen_layers(model.encoder, mean, scale))
        return Fit(codebook, codebook.encode(vectors))


def _num_passes(wanted: int, num_vectors: int) -> int:
    steps_per_pass = math.ceil(num_vectors / _BATCH_VECTORS)
    return max(1, min(wanted, _MOST_STEPS * wanted // (_WARM_UP_PASSES + _PASSES) // steps_per_pass))


def _warm_up(model: RqVae, inputs_ND: Tensor) -> None:
    optimizer = torch.optim.Adam([*model.encoder.parameters(), *model.decoder.parameters()], lr=_LEARNING_RATE)
    for _ in range(_num_passes(_WARM_UP_PASSES, len(inputs_ND))):
        for rows in torch.randperm(len(inputs_ND)).split(_BATCH_VECTORS):
            optimizer.zero_grad()
            model.autoencode(inputs_ND[rows]).backward()
            optimizer.step()


@torch.no_grad()
def _set_codewords(model: RqVae, inputs_ND: Tensor, level_sizes: tuple[int, ...], seed: int) -> None:
    latents = model.encoder(inputs_ND).numpy()
    start = ResidualKMeans().fit(latents, np.ones(len(latents)), level_sizes, derive_seed(seed, "rq-vae", "start"))
    assert isinstance(start.codebook, AdditiveCodebook)
    for words_KL, found in zip(model.codebooks, start.codebook.codewords, strict=True):
        words_KL.copy_(torch.from_numpy(found))


def _train(model: RqVae, inputs_ND: Tensor) -> None:
    num_passes = _num_passes(_PASSES, len(inputs_ND))
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_passes)
    for number in range(num_passes):
        num_taken = [torch.zeros(len(words), dtype=torch.int64) for words in model.codebooks]
        total = 0.0
        for rows in torch.randperm(len(inputs_ND)).split(_BATCH_VECTORS):
            optimizer.zero_grad()
            passed = model(inputs_ND[rows])
            passed.loss.backward()
            optimizer.step()
            total += float(passed.loss.detach()) * len(rows)
            for level, counts_K in enumerate(num_taken):
                counts_K += passed.codes_BM[:, level].bincount(minlength=len(counts_K))
        schedule.step()
        if number < _REVIVING_SHARE * num_passes:
            num_revived = revive_unused(list(model.codebooks), num_taken, passed.residuals)
        if (number + 1) % 50 == 0:
            log.info(
                "pass %d of %d: loss %.4f, %d codes revived",
                number + 1,
                num_passes,
                total / len(inputs_ND),
                num_revived,
            )


@torch.no_grad()
def revive_unused(codebooks: Sequence[Tensor], num_taken: Sequence[Tensor], residuals: Sequence[Tensor]) -> int:
    """Puts codewords that nobody took onto residuals drawn at random.

    Args:
        codebooks: [K, L] per level, overwritten where unused.
        num_taken: how often each code was taken, int64 [K] per level.
        residuals: what a level is to quantize, [B, L] per level.

    Returns:
        How many codewords were moved.
    """
    num_moved = 0
    for words_KL, counts_K, residual_BL in zip(codebooks, num_taken, residuals, strict=True):
        unused = (counts_K == 0).nonzero()[:, 0]
        words_KL[unused] = residual_BL[torch.randint(len(residual_BL), (len(unused),))]
        num_moved += len(unused)
    return num_moved
