"""Interactions of a Parquet file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from peso.data.sources.file_parts import FilePart
from peso.data.sources.row_batch import ITEM, LINE, RATING, TIME, USER, Columns, RowBatch
from peso.errors import DataError

ROWS_PER_BATCH = 2**20


def read_parquet_rows(part: FilePart, columns: Columns, rows_per_batch: int = ROWS_PER_BATCH) -> Iterator[RowBatch]:
    """Reads rows of a Parquet file in batches; a time that is a date is given in microseconds of UTC.

    Args:
        part: the rows.
        columns: wanted.
        rows_per_batch: rows in memory at a time.

    Raises:
        DataError: the file is missing or damaged, lacks a column, or a column has values that cannot be meant.
    """
    path, parts = part.path, columns.by_part
    with _told(path):
        scan = pl.scan_parquet(path)
        schema = scan.collect_schema()
        missing = next((name for name in parts.values() if name not in schema), None)
        if missing is not None:
            raise DataError(
                f"{path} has the columns {', '.join(map(repr, schema.names()[:20]))}, but no {missing!r}; "
                "say which hold user, item, time and rating."
            )
        wanted = scan.select(_as_text(path, kind, name, schema[name]) for kind, name in parts.items())
        end = _num_rows(path) if part.length is None else part.start + part.length
        for start in range(part.start, end, rows_per_batch):
            frame = wanted.slice(start, min(rows_per_batch, end - start)).collect()
            lines = pl.int_range(start + 1, start + 1 + frame.height, dtype=pl.Int64, eager=True)
            yield RowBatch(path, frame.insert_column(0, lines.alias(LINE)), [])


def parquet_parts(path: Path, rows_per_part: int = ROWS_PER_BATCH) -> list[FilePart]:
    """A Parquet file in parts.

    Args:
        path: the file.
        rows_per_part: of all but the last.

    Raises:
        DataError: it is missing or damaged.
    """
    with _told(path):
        num_rows = _num_rows(path)
    starts = range(0, num_rows, rows_per_part)
    parts = [FilePart(path, start, min(rows_per_part, num_rows - start), start + 1) for start in starts]
    return parts if len(parts) > 1 else [FilePart(path)]


def _num_rows(path: Path) -> int:
    return pl.scan_parquet(path).select(pl.len()).collect().item()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        first_line = (str(error).strip().splitlines() or ["no message"])[0]
        raise DataError(f"{path} cannot be read as Parquet ({first_line}); check the file.") from None


def holds_dates(path: Path, columns: Columns) -> bool:
    """Whether the time is a date, or a date and time, so that `read_parquet_rows` gives microseconds."""
    try:
        schema = pl.scan_parquet(path).collect_schema()
    except (OSError, pl.exceptions.PolarsError):
        return False
    return columns.time is not None and schema.get(columns.time, pl.Null()).is_temporal()


def _as_text(path: Path, part: str, name: str, dtype: pl.DataType) -> pl.Expr:
    is_text = isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
    column = pl.col(name)
    if part in (USER, ITEM) and not (is_text or dtype.is_integer()):
        raise DataError(f"{path}: column {name!r} holds {dtype}, no ids; give text or whole numbers.")
    if part == RATING and not (is_text or dtype.is_numeric()):
        raise DataError(f"{path}: column {name!r} holds {dtype}, no ratings; give numbers.")
    if part == TIME and isinstance(dtype, pl.Datetime | pl.Date):
        column = column.cast(pl.Datetime("us")).cast(pl.Int64)
    elif part == TIME and not (is_text or dtype.is_numeric()):
        raise DataError(f"{path}: column {name!r} holds {dtype}, no times; give numbers, dates or text.")
    return column.cast(pl.String).alias(part)
