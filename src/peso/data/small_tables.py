"""Small tables that users hand over: CSV, JSON lines or Parquet, checked before anything is done with them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from peso.errors import DataError

_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: pl.read_csv(path, infer_schema=False),
    ".jsonl": pl.read_ndjson,
    ".parquet": pl.read_parquet,
}


def read_small_table(path: Path, what: str, needed: Sequence[str], texts: Sequence[str]) -> pl.DataFrame:
    """Reads a `.csv`, `.jsonl` or `.parquet` table.

    Args:
        path: of the table.
        what: its rows hold, in the plural, for messages.
        needed: columns that it must have.
        texts: columns that hold one string per row, if they are there.

    Raises:
        DataError: the file is missing, damaged, empty, or lacks a column.
    """
    read = _READERS.get(path.suffix)
    if read is None:
        raise DataError(f"{path}: {what} are read from {', '.join(_READERS)}; save the table as one of these.")
    try:
        frame = read(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DataError(f"{path} cannot be read as {path.suffix[1:]} ({first_line}); check the file.") from None
    missing = next((name for name in needed if name not in frame.columns), None)
    if missing is not None:
        raise DataError(f"{path} has columns {frame.columns} but no {missing!r}; add it.")
    if frame.is_empty():
        raise DataError(f"{path} holds no {what}; give at least one.")
    nested = next((name for name in texts if name in frame.columns and frame[name].dtype.is_nested()), None)
    if nested is not None:
        raise DataError(f"{path}: column {nested!r} holds {frame[nested].dtype}; write one string per row.")
    return frame


def full_column(path: Path, frame: pl.DataFrame, name: str) -> pl.Series:
    """A column as strings, none of them empty.

    Raises:
        DataError: a row has none.
    """
    column = frame[name].cast(pl.String)
    is_empty = column.fill_null("") == ""
    if is_empty.any():
        row = is_empty.arg_max()
        assert row is not None
        raise DataError(f"{path}: row {row + 1} has no {name!r}; give every row one.")
    return column
