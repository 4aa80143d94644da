"""How a data set changes from block to block: who comes, goes and returns, what is new, how tastes drift."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso.data.dataset import Dataset
from peso.evaluation.groups import user_groups


@dataclass(frozen=True)
class BlockCard:
    """One block.

    Attributes:
        block: 0-based.
        num_events: interactions.
        num_users: with an event.
        num_new: of these, users with no earlier event.
        num_returning: with an event in the block before.
        num_dormant: with earlier events, but none in the block before.
        num_items: with an event.
        num_new_items: of these, in no earlier block.
        share_of_new_items: of the block's events, those with such an item.
        median_events: per user of the block.
        longest: most events of one user.
        drift: Jensen-Shannon divergence (bits, 0 to 1) of the popularity of items from that in the block before; None
            for block 0.
        drift_from_base: the same from block 0.
    """

    block: int
    num_events: int
    num_users: int
    num_new: int
    num_returning: int
    num_dormant: int
    num_items: int
    num_new_items: int
    share_of_new_items: float
    median_events: float
    longest: int
    drift: float | None
    drift_from_base: float | None


def block_cards(dataset: Dataset) -> list[BlockCard]:
    """A card per block, in order."""
    cards: list[BlockCard] = []
    base = before = np.zeros(dataset.num_items)
    for block in range(dataset.num_blocks):
        events = np.flatnonzero(dataset.event_block == block)
        items = dataset.event_item[events]
        _, first_events, per_user = np.unique(dataset.event_user[events], return_index=True, return_counts=True)
        groups = user_groups(dataset, events[first_events])
        num_new, num_returning, num_dormant = (
            int((groups == group).sum()) for group in ("new", "returning", "dormant")
        )
        popularity = np.bincount(items, minlength=dataset.num_items) / len(events)
        is_new = dataset.item_first_block == block
        cards.append(
            BlockCard(
                block,
                len(events),
                len(per_user),
                num_new,
                num_returning,
                num_dormant,
                int(np.count_nonzero(popularity)),
                int(is_new.sum()),
                float(is_new[items].mean()),
                float(np.median(per_user)),
                int(per_user.max()),
                jensen_shannon(before, popularity) if block else None,
                jensen_shannon(base, popularity) if block else None,
            )
        )
        before = popularity
        base = base if block else popularity
    return cards


def jensen_shannon(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Jensen-Shannon divergence of two distributions in bits: 0 where they are equal, 1 where they share nothing.

    Args:
        first: probabilities, float64 [N], summing to one.
        second: the same.

    Source: Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    middle = (first + second) / 2

    def against_middle(part: NDArray[np.float64]) -> float:
        held = part > 0
        return float(np.sum(part[held] * np.log2(part[held] / middle[held])))

    return max(0.0, (against_middle(first) + against_middle(second)) / 2)
