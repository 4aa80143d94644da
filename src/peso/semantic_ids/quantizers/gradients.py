"""What a quantized latent passes back to the latent it stands for, as argmin itself passes nothing.

Shapes: B batch, L dimensions of the latents.
"""

import torch
from torch import Tensor

from peso.types import GradientName

_SMALLEST_LENGTH = 1e-6


def pass_back(latent_BL: Tensor, quantized_BL: Tensor, gradient: GradientName) -> Tensor:
    """The quantized latents, with a gradient towards the latents.

    Args:
        latent_BL: z, [B, L].
        quantized_BL: q, [B, L]; gets no gradient.
        gradient: the estimator.

    Returns:
        [B, L], equal to q.
    """
    moved_BL = latent_BL if gradient == "straight_through" else _rotate(latent_BL, quantized_BL.detach())
    return moved_BL + (quantized_BL - moved_BL).detach()


def _rotate(latent_BL: Tensor, quantized_BL: Tensor) -> Tensor:
    """The rotation trick: q = s R z, R the rotation in the plane of z and q, s the ratio of lengths, both constants.

    The gradient g at q reaches z as s R^T g: where it would turn q away from its direction, it turns z away by the same
    angle. With unit vectors a of z and b of q and r = (a + b) / |a + b|, R z = z - 2 r (r^T z) + 2 b (a^T z).

    Source: Fifty and others, "Restructuring Vector Quantization with the Rotation Trick", 2024, Eq. 4.
    """
    with torch.no_grad():
        length_B1 = latent_BL.norm(dim=1, keepdim=True).clamp_min(_SMALLEST_LENGTH)
        scale_B1 = quantized_BL.norm(dim=1, keepdim=True) / length_B1
        from_BL = latent_BL / length_B1
        to_BL = quantized_BL / quantized_BL.norm(dim=1, keepdim=True).clamp_min(_SMALLEST_LENGTH)
        middle_BL = from_BL + to_BL
        middle_BL = middle_BL / middle_BL.norm(dim=1, keepdim=True).clamp_min(_SMALLEST_LENGTH)
    along_middle_B1 = (latent_BL * middle_BL).sum(dim=1, keepdim=True)
    along_from_B1 = (latent_BL * from_BL).sum(dim=1, keepdim=True)
    return scale_B1 * (latent_BL - 2 * along_middle_B1 * middle_BL + 2 * along_from_B1 * to_BL)
