"""The decoupled proximal step in a diagonal metric, and what its weights can be.

    min_v  1/2 ||v - u||^2 + c/2 sum_j w_j (v_j - a_j)^2    is    v = u - c / (c + 1 / w) (u - a).

Weights of mean 1 keep the meaning of a strength: where Adam pushes at its full rate for ever, coordinate j comes to
rest 1 / (strength w_j) from its anchor.

Shapes: G groups of one size, N elements of a group, R rows of a table.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RIDGE = 0.1
"""Share of a module's mean that every curvature gets besides its own: no weight is below 1 / 11."""


class DiagonalPull:
    """The pull of one size of groups."""

    def __init__(self, anchor_GN: Tensor, weights: Tensor, strength: float) -> None:
        """Computes what does not change during a block.

        Args:
            anchor_GN: a, float32 [G, N]; kept as it is, so it must not change.
            weights: w, positive, of a shape that broadcasts to [G, N].
            strength: at least 0; 0 moves nothing.
        """
        self._anchor_GN, self._inverse, self._strength = anchor_GN, weights.reciprocal(), strength
        # Fresh memory at every step would cost more than the arithmetic.
        self._share, self._delta_GN = torch.empty_like(self._inverse), torch.empty_like(anchor_GN)

    @torch.no_grad()
    def __call__(self, current_GN: Tensor, rate: float) -> None:
        """One closed-form step, stable at every strength; rate 0 moves nothing.

        Args:
            current_GN: u, float32 [G, N], overwritten with v.
            rate: learning rate of the optimizer's step, or the sum of several's.
        """
        c = rate * self._strength
        share = torch.add(self._inverse, c, out=self._share).reciprocal_().mul_(c)
        current_GN.sub_(torch.sub(current_GN, self._anchor_GN, out=self._delta_GN).mul_(share))


def module_of(group: str) -> str:
    """The module that a group belongs to: `layers.0.self_attn.q_proj` of its `lora_A`, `lm_head` of its `rows`."""
    return group.rpartition(".")[0]


def curvature_weights(squares: Sequence[Tensor], names: Sequence[tuple[str, ...]]) -> list[Tensor]:
    """Weights of mean 1 over each module from the mean squared gradients: (F + ridge mean F) / ((1 + ridge) mean F).

    A and B of a module share their mean, so what is exchanged between them by scaling costs the same.

    Args:
        squares: F, at least 0, one [G, N] tensor per size.
        names: of the groups; all but the last part names the module.

    Returns:
        Laid out alike, positive; 1 everywhere in a module that no gradient reaches.
    """
    total: dict[str, float] = {}
    size: dict[str, int] = {}
    for squares_GN, names_G in zip(squares, names, strict=True):
        for name, one in zip(names_G, squares_GN.double().sum(1).tolist(), strict=True):
            total[module_of(name)] = total.get(module_of(name), 0.0) + one
            size[module_of(name)] = size.get(module_of(name), 0) + squares_GN.shape[1]
    weights = []
    for squares_GN, names_G in zip(squares, names, strict=True):
        means = [total[module_of(name)] / size[module_of(name)] for name in names_G]
        scales = squares_GN.new_tensor([1 / mean if mean > 0 else 0.0 for mean in means])
        ridges = squares_GN.new_tensor([RIDGE if mean > 0 else 1 + RIDGE for mean in means])
        weights.append((squares_GN * scales[:, None]).add_(ridges[:, None]).div_(1 + RIDGE))
    return weights


def rarity_weights(counts_GR: Tensor) -> Tensor:
    """Weights of mean 1 over each table that hold rows the block rarely shows nearer the anchor: w ~ m / (n + m).

    A row's gradients come from its n examples, so its second moment grows as n. With H = I and a strength of m
    examples, Proposition 1 leaves the share m / (n + m) of the way to the anchor. The optimizer, which scales every
    gradient to one size, knows nothing of n: the pull has to.

    Args:
        counts_GR: n, at least 0.

    Returns:
        [G, R]; m is the mean over the rows that are shown at all.
    """
    shown_G1 = (counts_GR > 0).sum(1, keepdim=True).clamp(min=1)
    typical_G1 = (counts_GR.sum(1, keepdim=True) / shown_G1).clamp(min=1)
    weights_GR = typical_G1 / (counts_GR + typical_G1)
    return weights_GR / weights_GR.mean(1, keepdim=True)
