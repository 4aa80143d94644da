"""The facts: who took which item in which block, in what order, and what the items are called.

Users and items are dense integers inside peso (their position in `user_ids` / `item_ids`) and strings outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from peso.errors import DataError
from peso.files import sha256_of

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Events of every block, sorted by user and, within a user, by time.

    A user's events are one contiguous slice, so the history of the event at index e is a slice that ends at e.

    Attributes:
        user_ids: external id of each user, length U.
        item_ids: external id of each item, length N. May hold items that no event names.
        titles: title of each item, length N (empty strings where unknown).
        event_user: int64 [E], non-decreasing.
        event_item: int64 [E].
        event_block: int64 [E], 0-based, non-decreasing within a user; block 0 is the base.
        num_blocks: number of blocks; every block has at least one event.
        source: where the data came from, in a few words (not a path).
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    titles: Sequence[str]
    event_user: IntArray
    event_item: IntArray
    event_block: IntArray
    num_blocks: int
    source: str = field(default="")

    def __post_init__(self) -> None:
        """Checks the invariants that everything else relies on.

        Raises:
            DataError: lengths differ, ids repeat, indices are out of range, or a user's events go back in time.
        """
        num_events = len(self.event_user)
        if num_events == 0:
            raise DataError("the data set has no events; import at least one interaction.")
        if len(self.event_item) != num_events or len(self.event_block) != num_events:
            raise DataError("event_user, event_item and event_block must have equal length.")
        if len(self.titles) != len(self.item_ids):
            raise DataError(f"{len(self.titles)} titles for {len(self.item_ids)} items; give one each.")
        for name, ids in (("user", self.user_ids), ("item", self.item_ids)):
            if len(set(ids)) != len(ids):
                raise DataError(f"a {name} id occurs twice; ids must be unique.")
        for name, values, size in (
            ("user", self.event_user, len(self.user_ids)),
            ("item", self.event_item, len(self.item_ids)),
            ("block", self.event_block, self.num_blocks),
        ):
            if values.min() < 0 or values.max() >= size:
                raise DataError(f"an event names {name} number {int(values.max())}, but there are only {size}.")
        if np.any(np.diff(self.event_user) < 0):
            raise DataError("events must be sorted by user.")
        same_user = np.diff(self.event_user) == 0
        backwards = np.flatnonzero(same_user & (np.diff(self.event_block) < 0))
        if len(backwards):
            user = self.user_ids[int(self.event_user[backwards[0]])]
            raise DataError(f"user {user!r} has an event of an earlier block after one of a later block; sort by time.")
        missing = sorted(set(range(self.num_blocks)) - set(np.unique(self.event_block).tolist()))
        if missing:
            raise DataError(f"block {missing[0]} has no events; every block needs at least one.")

    @property
    def num_users(self) -> int:
        """Number of users U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of items N in the catalogue."""
        return len(self.item_ids)

    @property
    def num_events(self) -> int:
        """Number of events E."""
        return len(self.event_user)

    @cached_property
    def user_offsets(self) -> IntArray:
        """int64 [U + 1]: user u's events are the slice user_offsets[u] : user_offsets[u + 1]."""
        return np.searchsorted(self.event_user, np.arange(self.num_users + 1)).astype(np.int64)

    @cached_property
    def item_first_block(self) -> IntArray:
        """int64 [N]: the first block in which each item occurs; num_blocks for items that never do."""
        first = np.full(self.num_items, self.num_blocks, dtype=np.int64)
        np.minimum.at(first, self.event_item, self.event_block)
        return first

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids, titles and events: equal data have equal fingerprints, whatever file they came from."""
        return sha256_of(
            "\n".join(self.user_ids).encode(),
            "\n".join(self.item_ids).encode(),
            "\n".join(self.titles).encode(),
            self.event_user.astype("<i8").tobytes(),
            self.event_item.astype("<i8").tobytes(),
            self.event_block.astype("<i8").tobytes(),
        )

    def user_number(self, user_id: str) -> int:
        """The dense number of an external user id.

        Raises:
            DataError: no event names this user.
        """
        try:
            return self._user_numbers[user_id]
        except KeyError:
            example = self.user_ids[0]
            raise DataError(f"user {user_id!r} is not in this workspace; a user that is: {example!r}.") from None

    @cached_property
    def _user_numbers(self) -> dict[str, int]:
        return {user: number for number, user in enumerate(self.user_ids)}
