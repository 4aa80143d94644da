"""SumLoRA and SD-LoRA: past adapters stay as frozen directions, and a new one is added on each block.

    W_0 + s (sum_i m_i B^_i A^_i + m B_t A_t),   A^ = A / ||A||_F,  B^ = B / ||B||_F

with m = m_i = 1 in SumLoRA; in SD-LoRA they start at 1 and train, one per past adapter and adapted layer. The adapter
of block t has rank (t + 1) r with all of the past, 2 r with the latest only.

Source: PESO, section 3 and Table 1. Differs from the authors' code, whose SD-LoRA multiplies the past by s once per
past adapter; a trained magnitude of the current adapter goes into its B when the block ends.
"""

from collections.abc import Sequence

from peso.config import CumulativeConfig
from peso.methods.base import BlockView, ContinualMethod, Leg


class Cumulative(ContinualMethod):
    """Sums the current adapter and normalised past ones."""

    def __init__(self, config: CumulativeConfig, learns_magnitudes: bool) -> None:
        """Chooses the variant.

        Args:
            config: which past adapters act, and what the current one starts from.
            learns_magnitudes: SD-LoRA instead of SumLoRA.
        """
        self._config, self._learns_magnitudes = config, learns_magnitudes

    def legs(self, view: BlockView) -> Sequence[Leg]:
        """One leg over the frozen past."""
        before = view.block - 1
        first = 0 if self._config.past == "all" else before
        past = tuple(view.state_after(block).normalised() for block in range(first, view.block))
        current = view.state_after(before) if self._config.start == "inherit" else view.fresh_state()
        targets = self.examples(view.dataset, view.block, view.seed)
        return [Leg(current, targets, past, self._learns_magnitudes, before)]
