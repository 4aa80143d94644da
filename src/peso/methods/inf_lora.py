"""InfLoRA: A is designed from the block's inputs and frozen, and only B trains; earlier blocks are not disturbed.

A spans the directions in which the block's inputs are large, outside the subspace that the rows of earlier A span:
what B learns on top of it leaves the outputs of inputs inside that subspace as they are. Past updates are kept whole.

Source: Liang and Li, "InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning", CVPR 2024. Ours keeps the
rows of earlier A as the subspace of earlier inputs instead of a second memory of their gradients. Where earlier blocks
have left fewer than r directions, the rest of A is zero and the block learns less.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from peso.lm.low_rank import LowRank
from peso.methods.base import BlockView, ContinualMethod, Leg, Trains


class InfLora(ContinualMethod):
    """Trains B on a designed A, above all earlier updates."""

    trains: ClassVar[Trains] = "b_only"

    def legs(self, view: BlockView) -> Sequence[Leg]:
        """One leg over the whole past."""
        past = tuple(view.state_after(block) for block in range(view.block))
        grams = view.input_grams(past)
        rank = past[0].rank
        fresh = view.fresh_state()
        designed = {
            name: designed_directions(gram, [one.a[name] for one in past], rank) for name, gram in grams.items()
        }
        # A Kaiming-uniform row has length 1 / sqrt(3) on average: designed rows get it too, so rates mean the same.
        current = LowRank({name: a / 3**0.5 for name, a in designed.items()}, fresh.b)
        return [Leg(current, self.examples(view.dataset, view.block, view.seed), past, token_rows_after=view.block - 1)]


def designed_directions(gram_II: Tensor, past: Sequence[Tensor], rank: int) -> Tensor:
    """The leading directions of some inputs outside what earlier rows span.

    Args:
        gram_II: mean x x^T, float32 [I, I].
        past: earlier A, each [r, I].
        rank: r.

    Returns:
        float32 [r, I], orthonormal rows, the largest inputs first; zero rows where no direction is left.
    """
    gram = gram_II.double()
    basis = _row_space(torch.cat(list(past)).double())
    outside = torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - basis.T @ basis
    values, vectors = torch.linalg.eigh(outside @ gram @ outside)
    chosen = vectors[:, -rank:].flip(1).T
    is_real = values[-rank:].flip(0) > 1e-10 * values[-1].clamp_min(1e-300)
    return (chosen * is_real[:, None]).to(gram_II.dtype)


def _row_space(rows: Tensor) -> Tensor:
    """Orthonormal rows that span the same space."""
    _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
    return vectors[values > 1e-6 * values.max().clamp_min(1e-300)]
