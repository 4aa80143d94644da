"""LSAT: a long-term adapter of all data so far and a short-term adapter of the latest block, averaged.

Source: Shi and others, "Preliminary Study on Incremental Learning for Large Language Model-based Recommender Systems",
CIKM 2024; PESO, section 3. Their outputs are averaged in the weights: the block's adapter has rank 2 r.
"""

from collections.abc import Sequence

from peso.methods.base import BlockView, ContinualMethod, Leg
from peso.methods.retrain import Retrain


class Lsat(ContinualMethod):
    """Two legs: the long-term adapter as `Retrain` makes it, and a fresh one that sees the block alone."""

    def legs(self, view: BlockView) -> Sequence[Leg]:
        """Long-term, then short-term."""
        short_term = Leg(view.fresh_state(), self.examples(view.dataset, view.block, view.seed), token_rows_after=0)
        return [*Retrain().legs(view), short_term]
