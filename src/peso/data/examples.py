"""Which events are targets, and what history each target may see.

Protocol of the PESO release, per block and user: the last event of the block is the test target, the one before it the
validation target, all earlier events of the block are training targets. A user with fewer than three events in a
block contributes them as training targets only. The history of a target is everything before it (earlier blocks
included), cut to the last `max_history` items.

A target is named by its event index: its user is `event_user[e]`, its item `event_item[e]`.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.errors import DataError
from peso.types import CatalogueName

Role = Literal["train", "valid", "test"]

MIN_EVENTS_FOR_EVALUATION = 3


def targets_of_block(dataset: Dataset, block: int, role: Role) -> IntArray:
    """Event indices of a block's training, validation or test targets.

    Args:
        dataset: the events.
        block: 0-based block number.
        role: "train", "valid" or "test".

    Returns:
        int64 [T], increasing; for "valid" and "test" at most one per user.
    """
    events = np.flatnonzero(dataset.event_block == block)
    users = dataset.event_user[events]
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    sizes = np.diff(np.r_[starts, len(events)])
    from_end = np.repeat(starts + sizes, sizes) - np.arange(len(events))  # 1 = the user's last event of the block
    is_evaluated = np.repeat(sizes >= MIN_EVENTS_FOR_EVALUATION, sizes)
    if role == "test":
        return events[is_evaluated & (from_end == 1)]
    if role == "valid":
        return events[is_evaluated & (from_end == 2)]
    return events[~is_evaluated | (from_end > 2)]


def num_later_tests(dataset: Dataset) -> int:
    """Test targets of all blocks behind block 0 together."""
    return sum(len(targets_of_block(dataset, block, "test")) for block in range(1, dataset.num_blocks))


def require_test_targets(dataset: Dataset, blocks: Iterable[int], what: str) -> None:
    """Refuses data in which one of some blocks has nothing to test on, nor to validate on.

    Args:
        dataset: the events.
        blocks: 0-based block numbers.
        what: needs the targets, for the error.

    Raises:
        DataError: it is so.
    """
    for block in blocks:
        if not len(targets_of_block(dataset, block, "test")):
            raise DataError(
                f"{what} needs validation and test targets in block {block}, and no user has "
                f"{MIN_EVENTS_FOR_EVALUATION} events there; cut the log into longer blocks."
            )


def all_events_of_block(dataset: Dataset, block: int) -> IntArray:
    """Event indices of every interaction of a block: the targets of the next-block protocol."""
    return np.flatnonzero(dataset.event_block == block).astype(np.int64)


def history_starts(dataset: Dataset, targets: IntArray, max_history: int) -> IntArray:
    """Where each target's history begins: it is `event_item[start : target]`, at most `max_history` items.

    Args:
        dataset: the events.
        targets: event indices, int64 [T].
        max_history: longest history in items.

    Returns:
        int64 [T], start <= target; equal where the history is empty.
    """
    return np.maximum(dataset.user_offsets[dataset.event_user[targets]], targets - max_history)


def known_events(dataset: Dataset, block: int) -> IntArray:
    """Events that a model or rival after `block` may count: all of earlier blocks, and this one's training targets.

    Returns:
        int64, ascending.
    """
    return np.sort(np.r_[np.flatnonzero(dataset.event_block < block), targets_of_block(dataset, block, "train")])


def items_seen_in_training(dataset: Dataset, block: int) -> np.ndarray:
    """Which items the model after `block` can have met: any event of an earlier block, or a training target of this.

    Returns:
        bool [N].
    """
    seen: np.ndarray = dataset.item_first_block < block
    seen[dataset.event_item[targets_of_block(dataset, block, "train")]] = True
    return seen


def catalogue_items(dataset: Dataset, catalogue: CatalogueName, block: int) -> IntArray:
    """The items that a list for a target of `block` may name.

    Args:
        dataset: the events.
        catalogue: "known" (every item that occurs in any block up to this one) or "all" (the whole index).
        block: the target's block.

    Returns:
        int64, ascending item numbers.
    """
    if catalogue == "all":
        return np.arange(dataset.num_items)
    return np.flatnonzero(dataset.item_first_block <= block)


def has_repeats(dataset: Dataset, block: int = 0) -> bool:
    """Whether any user took an item twice within a block."""
    events = np.flatnonzero(dataset.event_block == block)
    pairs = dataset.event_user[events].astype(np.int64) * dataset.num_items + dataset.event_item[events]
    return len(np.unique(pairs)) < len(pairs)


def items_taken_before(dataset: Dataset, targets: IntArray) -> list[IntArray]:
    """The items of each target's user before it, the whole history, oldest first."""
    starts = dataset.user_offsets[dataset.event_user[targets]]
    return [dataset.event_item[start:target] for start, target in zip(starts, targets, strict=True)]
