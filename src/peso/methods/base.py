"""The contract of a continual method: what happens at the moments of a block that methods differ in.

A method owns no model and mutates nothing. It sees the adapter's LoRA matrices as `groups`: a sequence of [G, N]
tensors, one per matrix size, each row one flattened A or B; the token rows likewise, one row per table.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor

from peso.data.dataset import Dataset, IntArray
from peso.data.examples import targets_of_block
from peso.methods.pull import Pull

Penalty = Callable[[Sequence[Tensor]], Tensor]
"""From the adapter's current groups to a scalar."""


class ContinualMethod:
    """One way to carry an adapter from block to block; the defaults are those of a single evolving LoRA.

    Every block t >= 1 runs: training targets from `examples`; then, from the adapter of block t - 1 (the anchor),
    steps on cross-entropy + `penalty`, each followed by `pull`. Block 0 is the same for every method.
    """

    updates: ClassVar[bool] = True
    """Whether later blocks train the adapter at all."""

    def examples(self, dataset: Dataset, block: int) -> IntArray:
        """Event indices of the targets to train on: the block's own training targets unless a method adds some."""
        return targets_of_block(dataset, block, "train")

    def penalty(self, anchor: Sequence[Tensor]) -> Penalty | None:
        """What is added to the cross-entropy of one block; called once, before its first step.

        Args:
            anchor: the LoRA matrices after the previous block; they do not change during this one.

        Returns:
            From the current matrices, laid out alike, to a scalar that is differentiable in them; None when there is
            nothing to add.
        """
        return None

    def pull(self, anchor: Sequence[Tensor]) -> Pull | None:
        """What moves parameters after each optimizer step; called once per block for A and B, and for token rows.

        Args:
            anchor: the part's groups after the previous block; they do not change during this one.

        Returns:
            From the current groups, laid out alike, and the step's learning rate to their new values, in place; None
            when nothing is to be moved.
        """
        return None
