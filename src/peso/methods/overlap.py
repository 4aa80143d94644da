"""How far an adapter overlaps with earlier ones: zero where it works in directions of its own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from peso.lm.low_rank import LowRank

Overlap = Callable[[Sequence[Tensor]], Tensor]
"""From the adapter's groups, one [G, N] tensor per matrix size, to a scalar that is differentiable in them."""


def overlap_with(past: Sequence[LowRank], names: Sequence[Sequence[str]], of_b: bool) -> Overlap:
    """The sum over earlier adapters and layers of ||A A_i^T||_F^2, and of ||B^T B_i||_F^2 if wanted.

    Args:
        past: the earlier adapters, A_i and B_i.
        names: of the groups that the scalar is found from, ending in `lora_A` or `lora_B`.
        of_b: whether B counts as well.
    """
    rank = past[0].rank
    before = [[_matrices(_flat(one, names_G), names_G, rank, of_b) for one in past] for names_G in names]

    def overlap(groups: Sequence[Tensor]) -> Tensor:
        found = [groups[0].new_zeros(())]
        for current_GN, names_G, states in zip(groups, names, before, strict=True):
            for now, *earlier in zip(_matrices(current_GN, names_G, rank, of_b), *states, strict=True):
                found += [torch.bmm(now, one.transpose(1, 2)).square().sum() for one in earlier]
        return torch.stack(found).sum()

    return overlap


def _flat(state: LowRank, names: Sequence[str]) -> Tensor:
    """Matrices of a state as rows of a tensor, in the order of some groups."""
    by_name = {f"{layer}.lora_A": a for layer, a in state.a.items()}
    by_name |= {f"{layer}.lora_B": b for layer, b in state.b.items()}
    return torch.stack([by_name[name].flatten() for name in names])


def _matrices(groups_GN: Tensor, names: Sequence[str], rank: int, of_b: bool) -> list[Tensor]:
    """A of the groups, [G', r, I], and B turned, [G'', r, O]; what has no member is left out."""
    is_a = torch.tensor([name.endswith("lora_A") for name in names], device=groups_GN.device)
    found = []
    if bool(is_a.any()):
        found.append(groups_GN[is_a].unflatten(1, (rank, -1)))
    if of_b and not bool(is_a.all()):
        found.append(groups_GN[~is_a].unflatten(1, (-1, rank)).transpose(1, 2))
    return found
