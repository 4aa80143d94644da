"""Elastic weight consolidation: what the previous block's data depend on moves less.

    strength / 2 x sum_j F_j (v_j - v_{t-1, j})^2,   F the diagonal of the empirical Fisher matrix of block t - 1

over A and B. It is the proximal term of Eq. 11 with a diagonal H that the data choose.

Source: Kirkpatrick and others, "Overcoming catastrophic forgetting in neural networks", PNAS 2017; with the latest
block's Fisher alone, so that its memory stays one number per weight. F is scaled to a mean of one: the strength is that
of an L2 term of equal total weight.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from peso.config import EwcConfig
from peso.methods.base import BlockView, ContinualMethod
from peso.methods.penalty import Penalty


class Ewc(ContinualMethod):
    """A single evolving LoRA under a Fisher-weighted penalty."""

    def __init__(self, config: EwcConfig) -> None:
        """Keeps the strength.

        Args:
            config: how strong the penalty is.
        """
        self._strength = config.strength

    def penalty(self, anchor: Sequence[Tensor], view: BlockView) -> Penalty | None:
        """The quadratic penalty around the anchor."""
        fisher = view.squared_gradients(view.block - 1)["lora"]
        mean = sum(float(one.sum()) for one in fisher) / sum(one.numel() for one in fisher)
        weights = [one / max(mean, 1e-30) for one in fisher]

        def term(groups: Sequence[Tensor]) -> Tensor:
            distances = [
                (weight * (now - before).square()).sum()
                for weight, now, before in zip(weights, groups, anchor, strict=True)
            ]
            return self._strength / 2 * torch.stack(distances).sum()

        return Penalty(term)
