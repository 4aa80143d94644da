"""What a beam search asks of a model: read histories once, then carry beams on from them.

Shapes: B users, K beams, L history tokens, D width.
"""

from typing import Protocol

from torch import Tensor


class Beams(Protocol):
    """The beams behind the histories of one batch."""

    def extend(self, tokens_BK: Tensor, parent_BK: Tensor) -> Tensor:
        """Carries beams on by one token each.

        Args:
            tokens_BK: int64 [B, K], each beam's next token.
            parent_BK: int64 [B, K], which beam of the step before each one continues; ignored at the first step.

        Returns:
            [B, K, D], states after the final norm.
        """


class Body(Protocol):
    """A decoder stack without its head."""

    def read(self, prompts_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Beams]:
        """Reads a batch of histories.

        Args:
            prompts_BL: int64 [B, L], padded on the right.
            lengths_B: int64 [B], real tokens of each.

        Returns:
            [B, D], the state at each history's last token, after the final norm; and beams that start there.
        """
