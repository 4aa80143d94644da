"""Orthogonality to past adapters: what is learned now is kept out of the directions used before (O-LoRA's idea).

    strength x mean over past blocks i of sum over layers of ||A A_i^T||_F^2 + ||B^T B_i||_F^2

Source: the weakest penalty of PESO's Fig. 2; Wang and others, "Orthogonal Subspace Learning for Language Model
Continual Learning", EMNLP 2023 (which has the term in A only, and a new adapter for each task).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from peso.config import OrthogonalConfig
from peso.lm.low_rank import LowRank
from peso.methods.base import BlockView, ContinualMethod
from peso.methods.penalty import Penalty


class Orthogonal(ContinualMethod):
    """A single evolving LoRA that is pushed away from all of its past states."""

    def __init__(self, config: OrthogonalConfig) -> None:
        """Keeps the strength.

        Args:
            config: how strong the penalty is.
        """
        self._strength = config.strength

    def penalty(self, anchor: Sequence[Tensor], view: BlockView) -> Penalty | None:
        """Strength times the overlap with every adapter so far."""
        past = [view.state_after(block) for block in range(view.block)]
        rank = past[0].rank
        names = view.group_names()
        before = [[_matrices(_flat(one, names_G), names_G, rank) for one in past] for names_G in names]

        def term(groups: Sequence[Tensor]) -> Tensor:
            overlaps = []
            for current_GN, names_G, states in zip(groups, names, before, strict=True):
                for now, *earlier in zip(_matrices(current_GN, names_G, rank), *states, strict=True):
                    overlaps += [torch.bmm(now, one.transpose(1, 2)).square().sum() for one in earlier]
            return self._strength / len(past) * torch.stack(overlaps).sum()

        return Penalty(term)


def _flat(state: LowRank, names: Sequence[str]) -> Tensor:
    """Matrices of a state as rows of a tensor, in the order of some groups."""
    by_name = {f"{layer}.lora_A": a for layer, a in state.a.items()}
    by_name |= {f"{layer}.lora_B": b for layer, b in state.b.items()}
    return torch.stack([by_name[name].flatten() for name in names])


def _matrices(groups_GN: Tensor, names: Sequence[str], rank: int) -> list[Tensor]:
    """A of the groups, [G', r, I], and B turned, [G'', r, O]; what has no member is left out."""
    is_a = torch.tensor([name.endswith("lora_A") for name in names], device=groups_GN.device)
    found = []
    if bool(is_a.any()):
        found.append(groups_GN[is_a].unflatten(1, (rank, -1)))
    if not bool(is_a.all()):
        found.append(groups_GN[~is_a].unflatten(1, (-1, rank)).transpose(1, 2))
    return found
