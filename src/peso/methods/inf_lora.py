"""InfLoRA: A is designed from the block's inputs and frozen, and only B trains; earlier blocks are not disturbed.

A spans the directions in which the block's inputs are large, outside the subspace in which the inputs of earlier blocks
are: what B learns on top of it leaves the outputs of inputs inside that subspace as they are. Past updates are kept
whole.

Source: Liang and Li, "InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning", CVPR 2024. There the
subspace grows task by task and is stored; ours is taken at once from the inputs of all earlier blocks' training
targets, which are read again with the past adapters in place. Where fewer than r directions are left, the rest of A is
zero and the block learns less.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from peso.lm.low_rank import LowRank
from peso.methods.base import BlockView, ContinualMethod, Leg, Trains

PAST_ENERGY = 0.95
"""Share of the energy of earlier inputs that their subspace holds; the authors' first threshold."""
_ROUNDING = 1e-6
"""Of the largest input direction: less is what sums in float32 leave."""


class InfLora(ContinualMethod):
    """Trains B on a designed A, above all earlier updates."""

    trains: ClassVar[Trains] = "b_only"

    def legs(self, view: BlockView) -> Sequence[Leg]:
        """One leg over the whole past."""
        past = tuple(view.state_after(block) for block in range(view.block))
        grams, earlier = view.input_grams(past, [view.block]), view.input_grams(past, range(view.block))
        rank = past[0].rank
        fresh = view.fresh_state()
        designed = {name: designed_directions(gram, earlier[name], rank) for name, gram in grams.items()}
        # A Kaiming-uniform row has length 1 / sqrt(3) on average: designed rows get it too, so rates mean the same.
        current = LowRank({name: a / 3**0.5 for name, a in designed.items()}, fresh.b)
        return [Leg(current, self.examples(view.dataset, view.block, view.seed), past, token_rows_after=view.block - 1)]


def designed_directions(gram_II: Tensor, earlier_II: Tensor, rank: int) -> Tensor:
    """The leading directions of some inputs outside the subspace of earlier ones.

    Args:
        gram_II: mean x x^T, float32 [I, I].
        earlier_II: the same of earlier inputs.
        rank: r.

    Returns:
        float32 [r, I], orthonormal rows, the largest inputs first; zero rows where no direction is left.
    """
    gram = gram_II.double()
    basis = _leading_directions(earlier_II.double())
    outside = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - basis @ basis.T
    values, vectors = torch.linalg.eigh(outside @ gram @ outside)
    chosen = vectors[:, -rank:].flip(1).T
    # Against the inputs as they were: what is left of them may be nothing but rounding.
    is_real = values[-rank:].flip(0) > _ROUNDING * torch.linalg.matrix_norm(gram, 2)
    return (chosen * is_real[:, None]).to(gram_II.dtype)


def _leading_directions(gram_II: Tensor) -> Tensor:
    """As few orthonormal columns as hold the share of the inputs' energy that counts as the past's."""
    values, vectors = torch.linalg.eigh(gram_II)
    # From the smallest on: columns whose energy together with all smaller ones is more than what may be left out.
    is_held = values.clamp_min(0).cumsum(0) > (1 - PAST_ENERGY) * values.clamp_min(0).sum()
    return vectors[:, is_held]
