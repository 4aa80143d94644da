"""The residual-quantized autoencoder: what it computes and what its loss is.

Shapes: B batch, D dimensions of the vectors, L of the latents, M levels, K codes of a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peso.semantic_ids.quantizers.gradients import pass_back
from peso.semantic_ids.quantizers.networks import build_network, mean_square
from peso.semantic_ids.quantizers.transport import balanced_codes
from peso.types import GradientName

_COMMITMENT = 0.25


@dataclass(frozen=True, eq=False)
class Pass:
    """What one batch gave.

    Attributes:
        loss: scalar: reconstruction, codebook and commitment terms, each a squared distance averaged over the batch.
        codes_BM: int64 [B, M].
        residuals: what each level quantized, [B, L] per level, without gradient.
    """

    loss: Tensor
    codes_BM: Tensor
    residuals: list[Tensor]


class RqVae(nn.Module):
    """Encoder, one codebook per level, decoder.

    Source: Lee and others, CVPR 2022, with a codebook per level as in Rajput and others (TIGER), NeurIPS 2023.
    """

    def __init__(self, widths: Sequence[int], level_sizes: Sequence[int], gradient: GradientName) -> None:
        """Builds an untrained model; codebooks are zeros until they are set.

        Args:
            widths: of the encoder's layers, from D to L; the decoder is its mirror image.
            level_sizes: codes per level.
            gradient: how gradients pass the quantization.
        """
        super().__init__()
        self.encoder = build_network(widths)
        self.decoder = build_network(widths[::-1])
        self.codebooks = nn.ParameterList([torch.zeros(size, widths[-1]) for size in level_sizes])
        self._gradient: GradientName = gradient

    def autoencode(self, vectors_BD: Tensor) -> Tensor:
        """Mean squared distance between the vectors and their reconstruction without quantization."""
        return mean_square(self.decoder(self.encoder(vectors_BD)) - vectors_BD)

    def forward(self, vectors_BD: Tensor) -> Pass:
        """One training pass.

        The last level's codes are balanced within the batch, so that items which share all earlier codes spread over
        the last (as Zheng and others, LC-Rec, 2024); earlier levels take the nearest codeword.

        Args:
            vectors_BD: float32 [B, D].
        """
        latent_BL = self.encoder(vectors_BD)
        residual_BL, quantized_BL = latent_BL, torch.zeros_like(latent_BL)
        codes, residuals, quantization = [], [], vectors_BD.new_zeros(())
        for level, words_KL in enumerate(self.codebooks):
            distances_BK = torch.cdist(residual_BL.detach(), words_KL.detach()).square()
            is_last = level == len(self.codebooks) - 1
            codes_B = balanced_codes(distances_BK) if is_last else distances_BK.argmin(dim=1)
            chosen_BL = words_KL[codes_B]
            quantization = quantization + mean_square(residual_BL.detach() - chosen_BL)
            quantization = quantization + _COMMITMENT * mean_square(residual_BL - chosen_BL.detach())
            codes.append(codes_B)
            residuals.append(residual_BL.detach())
            quantized_BL = quantized_BL + chosen_BL
            residual_BL = residual_BL - chosen_BL.detach()
        reconstruction_BD = self.decoder(pass_back(latent_BL, quantized_BL, self._gradient))
        loss = mean_square(reconstruction_BD - vectors_BD) + quantization
        return Pass(loss, torch.stack(codes, dim=1), residuals)
