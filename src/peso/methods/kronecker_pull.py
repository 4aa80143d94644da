"""The decoupled proximal step of A and B in a metric that is a Kronecker product per matrix.

A layer y = W x + s B A x with the gradient g with respect to y has, per token, the gradients s (B^T g) x^T of A and
s g (A x)^T of B. As if x and g were independent (K-FAC), their second moments are Kronecker products,

    of A:  (B^T G B) (x) X,    of B:  G (x) (A X A^T),    X = mean x x^T,  G = mean g g^T,

all at the anchor. In the eigenbases of both factors such an H is diagonal, and so is the proximal step. s is the same
for both; scaled to a mean of 1 over A and B together, it has no say.

Both kinds of matrices are handled as thin ones: A as it is, B transposed.

Shapes: G groups of one size, N elements of a group, r rank, W = N / r features (I of A, O of B).

Source: the factors are those of Martens and Grosse, "Optimizing neural networks with Kronecker-factored approximate
curvature", ICML 2015; the proximal step in them is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peso.methods.diagonal_pull import RIDGE, module_of
from peso.methods.pull import Pull, together


@dataclass(frozen=True, eq=False)
class Factors:
    """Second moments of one group's gradient.

    Attributes:
        thin: over the ranks, [r, r].
        wide: over the features, [W, W].
    """

    thin: Tensor
    wide: Tensor

    @property
    def trace(self) -> float:
        """Of the product."""
        return float(self.thin.trace()) * float(self.wide.trace())


class KroneckerPull:
    """The pull of one size of groups."""

    def __init__(
        self,
        anchor_GN: Tensor,
        is_b: Sequence[bool],
        factors: Sequence[Factors],
        means: Sequence[float],
        strength: float,
    ) -> None:
        """Computes what does not change during a block.

        Args:
            anchor_GN: a, float32 [G, N]; kept as it is, so it must not change.
            is_b: of each group, whether it is a B, [W, r]; otherwise an A, [r, W].
            factors: of each group.
            means: of each group, the mean eigenvalue over its module; 0 where no gradient reaches it.
            strength: at least 0; 0 moves nothing.
        """
        self._anchor_GN, self._strength = anchor_GN, strength
        self._is_b = torch.tensor(is_b, device=anchor_GN.device)
        thin, wide, inverse = [], [], []
        for one, mean in zip(factors, means, strict=True):
            thin_values, thin_vectors = torch.linalg.eigh(one.thin.double())
            wide_values, wide_vectors = torch.linalg.eigh(one.wide.double())
            products = torch.outer(thin_values.clamp(min=0), wide_values.clamp(min=0))
            sizes = (products / mean + RIDGE) / (1 + RIDGE) if mean > 0 else torch.ones_like(products)
            inverse.append(sizes.reciprocal().to(anchor_GN.dtype))
            thin.append(thin_vectors.to(anchor_GN.dtype))
            wide.append(wide_vectors.to(anchor_GN.dtype))
        self._thin_Grr, self._wide_GWW, self._inverse_GrW = torch.stack(thin), torch.stack(wide), torch.stack(inverse)

    @torch.no_grad()
    def __call__(self, current_GN: Tensor, rate: float) -> None:
        """One closed-form step, stable at every strength; rate 0 moves nothing.

        Args:
            current_GN: u, float32 [G, N], overwritten with v.
            rate: learning rate of the optimizer's step, or the sum of several's.
        """
        c = rate * self._strength
        delta_GrW = self._as_thin(current_GN - self._anchor_GN)
        turned_GrW = self._thin_Grr.mT @ delta_GrW @ self._wide_GWW
        turned_GrW.mul_((self._inverse_GrW + c).reciprocal_().mul_(c))
        current_GN.sub_(self._as_groups(self._thin_Grr @ turned_GrW @ self._wide_GWW.mT))

    def _as_thin(self, groups_GN: Tensor) -> Tensor:
        num_groups, rank, width = self._inverse_GrW.shape
        of_a, of_b = groups_GN.view(num_groups, rank, width), groups_GN.view(num_groups, width, rank).mT
        return torch.where(self._is_b[:, None, None], of_b, of_a)

    def _as_groups(self, thin_GrW: Tensor) -> Tensor:
        return torch.where(self._is_b[:, None], thin_GrW.mT.flatten(1), thin_GrW.flatten(1))


def kronecker_pull(
    anchor: Sequence[Tensor],
    names: Sequence[tuple[str, ...]],
    moments: Mapping[str, tuple[Tensor, Tensor]],
    strength: float,
) -> Pull:
    """The pull of all A and B.

    Args:
        anchor: the groups after the previous block, one float32 [G, N] tensor per size.
        names: of the groups, ending in `lora_A` or `lora_B`; every module has both.
        moments: X [I, I] and G [O, O] of every module.
        strength: see `KroneckerPull`.
    """
    rows = {name: row for groups, own in zip(anchor, names, strict=True) for name, row in zip(own, groups, strict=True)}
    factors: dict[str, Factors] = {}
    means: dict[str, float] = {}
    for module, (inputs, outputs) in moments.items():
        a_rI = rows[f"{module}.lora_A"].view(-1, len(inputs))
        b_Or = rows[f"{module}.lora_B"].view(len(outputs), -1)
        of_a, of_b = Factors(b_Or.T @ outputs @ b_Or, inputs), Factors(a_rI @ inputs @ a_rI.T, outputs)
        factors |= {f"{module}.lora_A": of_a, f"{module}.lora_B": of_b}
        means[module] = (of_a.trace + of_b.trace) / (a_rI.numel() + b_Or.numel())
    return together(
        [
            KroneckerPull(
                groups,
                [name.endswith("lora_B") for name in own],
                [factors[name] for name in own],
                [means[module_of(name)] for name in own],
                strength,
            )
            for groups, own in zip(anchor, names, strict=True)
        ]
    )
