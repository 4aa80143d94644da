"""O-LoRA: a new adapter for each block beside the frozen ones of the past, whose A keeps out of the rows of theirs.

    W_0 + s (sum_i B_i A_i + B_t A_t),   cross-entropy + strength x sum over i < t and layers of ||A_t A_i^T||_F^2

Source: Wang and others, "Orthogonal Subspace Learning for Language Model Continual Learning", EMNLP 2023. Differs from
the authors' code, which takes absolute values of the entries instead of squares; v_0 counts as the first task.
"""

from collections.abc import Sequence

from torch import Tensor

from peso.config import OLoraConfig
from peso.methods.base import BlockView, ContinualMethod, Leg
from peso.methods.overlap import overlap_with
from peso.methods.penalty import Penalty


class OLora(ContinualMethod):
    """Adds an adapter on each block and keeps all of them."""

    def __init__(self, config: OLoraConfig) -> None:
        """Keeps the strength.

        Args:
            config: how strong the penalty is.
        """
        self._strength = config.strength

    def legs(self, view: BlockView) -> Sequence[Leg]:
        """One leg with a fresh adapter over the whole past."""
        past = tuple(view.state_after(block) for block in range(view.block))
        targets = self.examples(view.dataset, view.block, view.seed)
        return [Leg(view.fresh_state(), targets, past, token_rows_after=view.block - 1)]

    def penalty(self, anchor: Sequence[Tensor], view: BlockView) -> Penalty | None:
        """Strength times the overlap of A with that of every adapter so far."""
        past = [view.state_after(block) for block in range(view.block)]
        overlap = overlap_with(past, view.group_names(), of_b=False)
        return Penalty(lambda groups: self._strength * overlap(groups))
