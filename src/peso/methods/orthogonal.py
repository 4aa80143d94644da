"""Orthogonality to past states: what is learned now is kept out of the directions used before (PESO's Fig. 2).

    strength x mean over past blocks i of sum over layers of ||A A_i^T||_F^2 + ||B^T B_i||_F^2

The adapter is a single evolving one, so the last of the past states is where training starts, and the term makes it
smaller as well. For a new adapter beside those of the past see `peso.methods.o_lora`.

Source: the weakest penalty of PESO's Fig. 2, which leaves the formula open.
"""

from collections.abc import Sequence

from torch import Tensor

from peso.config import OrthogonalConfig
from peso.methods.base import BlockView, ContinualMethod
from peso.methods.overlap import overlap_with
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
        """Strength times the mean overlap with every state so far."""
        past = [view.state_after(block) for block in range(view.block)]
        overlap = overlap_with(past, view.group_names(), of_b=True)
        return Penalty(lambda groups: self._strength / len(past) * overlap(groups))
