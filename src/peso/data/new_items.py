"""Items that appeared after the data set was imported: a table of ids, titles and texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from peso.errors import DataError

_ID, _TITLE, _TEXT, _CATEGORIES = "item_id", "title", "text", "categories"
_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: pl.read_csv(path, infer_schema=False),
    ".jsonl": pl.read_ndjson,
    ".parquet": pl.read_parquet,
}


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
    read = _READERS.get(path.suffix)
    if read is None:
        raise DataError(f"{path}: new items are read from {', '.join(_READERS)}; save the table as one of these.")
    try:
        frame = read(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DataError(f"{path} cannot be read as {path.suffix[1:]} ({first_line}); check the file.") from None
    missing = next((name for name in (_ID, _TITLE) if name not in frame.columns), None)
    if missing is not None:
        raise DataError(f"{path} has columns {frame.columns} but no {missing!r}; add it.")
    if frame.is_empty():
        raise DataError(f"{path} holds no item; give at least one.")
    nested = next(
        (name for name in (_ID, _TITLE, _TEXT) if name in frame.columns and frame[name].dtype.is_nested()), None
    )
    if nested is not None:
        raise DataError(f"{path}: column {nested!r} holds {frame[nested].dtype}; write one string per item.")
    ids = frame[_ID].cast(pl.String)
    if ids.null_count() or (ids == "").any():
        raise DataError(f"{path}: row {_first(ids.fill_null('') == '')} has no {_ID!r}; give every item one.")
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


def _first(is_bad: pl.Series) -> int:
    """The first row that is bad, counted from 1."""
    number = is_bad.arg_max()
    assert number is not None
    return number + 1
