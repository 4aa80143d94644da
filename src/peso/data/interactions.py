"""Interactions as they were logged: who, what, when and how well it was liked, before anything is left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

USER, ITEM, TIME, RATING = "user", "item", "time", "rating"


@dataclass(frozen=True, eq=False)
class Interactions:
    """A log.

    Attributes:
        user_ids: distinct, in natural order (numbers by value, before text).
        item_ids: the same of items.
        events: `user` and `item` (UInt32, places in the lists), `time` (Int64, microseconds since 1970, UTC; or, where
            the log has no times, the number of the row) and, where there is one, `rating` (Float32); in the order of
            the log.
        has_times: whether `time` is one.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    events: pl.DataFrame
    has_times: bool

    @property
    def num_events(self) -> int:
        """Rows of the log."""
        return self.events.height

    def keep(self, is_kept: pl.Series) -> "Interactions":
        """Only some events; users and items stay, with or without events.

        Args:
            is_kept: Boolean, one per event.
        """
        return Interactions(self.user_ids, self.item_ids, self.events.filter(is_kept), self.has_times)

    def compact(self) -> "Interactions":
        """Without the users and items that have no events."""
        events, lists = self.events, []
        for name, ids in ((USER, self.user_ids), (ITEM, self.item_ids)):
            used = events[name].unique().sort()
            numbers = pl.DataFrame({name: used, "number": pl.int_range(used.len(), dtype=pl.UInt32, eager=True)})
            events = events.join(numbers, on=name, how="left", maintain_order="left")
            events = events.with_columns(pl.col("number").alias(name)).drop("number")
            lists.append([ids[number] for number in used.to_list()])
        return Interactions(lists[0], lists[1], events, self.has_times)


def natural_order(ids: pl.Series) -> pl.Series:
    """Ids in the order people expect: whole numbers by value, then everything else as text.

    Args:
        ids: String.
    """
    is_number = ids.str.contains(r"^(0|[1-9][0-9]{0,17})$")
    number = pl.when(is_number).then(ids.cast(pl.Int64, strict=False)).otherwise(None)
    frame = pl.DataFrame({"id": ids}).with_columns(number.alias("number"))
    return frame.sort("number", "id", nulls_last=True)["id"]
