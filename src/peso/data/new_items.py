"""Items that appeared after the data set was imported: a table of ids, titles and texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from peso.data.small_tables import full_column, read_small_table
from peso.errors import DataError

_ID, _TITLE, _TEXT, _CATEGORIES = "item_id", "title", "text", "categories"


@dataclass(frozen=True, eq=False)
class NewItems:
    """What is known of new items, each list of length N.

    Attributes:
        ids: distinct.
        titles: empty where unknown.
        texts: beyond the title; empty where there is none.
        categories: from broad to narrow; empty where unknown.
    """

    ids: Sequence[str]
    titles: Sequence[str]
    texts: Sequence[str]
    categories: Sequence[Sequence[str]]


def read_new_items(path: Path) -> NewItems:
    """Reads a `.csv`, `.jsonl` or `.parquet` table with the columns `item_id` and `title`.

    Further columns may be `text` and `categories`, from broad to narrow: a list, or text with `|` between them.

    Raises:
        DataError: the file is missing, damaged, empty, lacks a column, or an id is missing or occurs twice.
    """
    frame = read_small_table(path, "new items", (_ID, _TITLE), (_ID, _TITLE, _TEXT))
    ids = full_column(path, frame, _ID)
    if not ids.is_unique().all():
        raise DataError(f"{path} holds item {ids.filter(ids.is_duplicated())[0]!r} twice; keep one row per item.")
    titles, texts = (
        frame[name].cast(pl.String).fill_null("").to_list() if name in frame.columns else [""] * len(ids)
        for name in (_TITLE, _TEXT)
    )
    return NewItems(ids.to_list(), titles, texts, _categories(path, frame))


def _categories(path: Path, frame: pl.DataFrame) -> list[list[str]]:
    if _CATEGORIES not in frame.columns:
        return [[] for _ in range(frame.height)]
    column = frame[_CATEGORIES]
    if column.dtype == pl.String:
        column = column.str.split("|")
    if column.dtype not in (pl.List(pl.String), pl.List(pl.Null), pl.Null):
        raise DataError(f"{path}: column {_CATEGORIES!r} holds {column.dtype}; write text with | between categories.")
    return [[name for name in names or () if name] for names in column.to_list()]
