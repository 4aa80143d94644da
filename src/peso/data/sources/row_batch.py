"""What every reader of rows gives: batches of strings, whatever the file held."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from peso.data.sources.bad_rows import BadRow

LINE, USER, ITEM, TIME, RATING = "line", "user", "item", "time", "rating"


@dataclass(frozen=True)
class Columns:
    """Names of the columns (or keys) that hold an interaction.

    Attributes:
        user: of the user's id.
        item: of the item's id.
        time: None where rows stand in the order in which they happened.
        rating: None where there is none, or none is wanted.
    """

    user: str
    item: str
    time: str | None = None
    rating: str | None = None

    @property
    def by_part(self) -> dict[str, str]:
        """Names by what they hold: `user`, `item` and, if there, `time` and `rating`."""
        parts = {USER: self.user, ITEM: self.item, TIME: self.time, RATING: self.rating}
        return {part: name for part, name in parts.items() if name is not None}


@dataclass(frozen=True, eq=False)
class RowBatch:
    """Some rows of one file.

    Attributes:
        file: where they stand.
        frame: `line` (Int64, from 1) and a String column per part of the interaction, null where missing.
        bad: rows that are none.
    """

    file: Path
    frame: pl.DataFrame
    bad: list[BadRow]
