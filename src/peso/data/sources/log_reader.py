"""From batches of rows to one log: every row is checked, the good ones are kept on disk, and numbered at the end."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from peso.data.interactions import ITEM, RATING, TIME, USER, Interactions, natural_order
from peso.data.sources.bad_rows import BadRow, Rejects
from peso.data.sources.raw_log import RawLog
from peso.data.sources.row_batch import LINE, RowBatch
from peso.data.sources.times import TimeFormat, guess_time_format
from peso.errors import DataError

_FAULT = "fault"
_READ = "_read"
_CONTROL_CHARACTERS = r"[\x00-\x1f\x7f]"


@dataclass(frozen=True, eq=False)
class ReadLog:
    """What was read.

    Attributes:
        interactions: the good rows.
        num_rows: good and bad ones.
        time_format: how times were read; None where there are none.
    """

    interactions: Interactions
    num_rows: int
    time_format: TimeFormat | None


@dataclass(frozen=True, eq=False)
class CheckedRows:
    """A batch, its rows held against what an interaction must be.

    Attributes:
        good: `user`, `item` (String) and, where they are known, `time` (Int64) and `rating` (Float32).
        bad: in the order of their lines.
        time_format: how times are read; None as long as none was seen.
    """

    good: pl.DataFrame
    bad: list[BadRow]
    time_format: TimeFormat | None

    @property
    def num_rows(self) -> int:
        """Good and bad ones."""
        return self.good.height + len(self.bad)


LogReader = Callable[[RawLog, Rejects], ReadLog]
"""Reads a log as `read_log` does, perhaps elsewhere."""


def read_log(log: RawLog, rejects: Rejects) -> ReadLog:
    """Reads a log of any length; what is held in memory at the end is 20 bytes per row, and the ids.

    Args:
        log: what to read.
        rejects: takes the bad rows.

    Raises:
        DataError: a file is missing or damaged or lacks a column, there is no good row, or there are bad rows that must
            not be set aside.
    """
    num_rows, time_format = 0, log.layout.time_format
    with tempfile.TemporaryDirectory(prefix="peso-import-") as name:
        parts = Path(name)
        for number, rows in enumerate(checked(log.batches(), time_format)):
            time_format = rows.time_format
            num_rows += rows.num_rows
            rejects.add(rows.bad)
            if rows.good.height:
                rows.good.write_parquet(parts / f"{number:06}.parquet", compression="lz4")
        rejects.stop_if_any()
        return ReadLog(numbered(parts, num_rows), num_rows, time_format)


def checked(batches: Iterable[RowBatch], time_format: TimeFormat | None) -> Iterator[CheckedRows]:
    """Checks batches, one by one.

    Args:
        batches: with equal columns.
        time_format: None to guess it from the first time.

    Raises:
        DataError: the first time cannot be read, or what reading the batches raises.
    """
    for batch in batches:
        if time_format is None and TIME in batch.frame.columns:
            time_format = _guess(batch.frame[TIME])
        yield _checked(batch, time_format)


def seen_time_format(log: RawLog, is_lenient: bool) -> TimeFormat | None:
    """How a log writes its times: as its layout says, or as its first time shows; None where it has no times.

    Args:
        log: read as far as its first time.
        is_lenient: whether bad rows are set aside.

    Raises:
        DataError: what `read_log` raises before it has seen a time.
    """
    if log.layout.time_format is not None or log.layout.columns.time is None:
        return log.layout.time_format
    rejects = Rejects()
    for rows in checked(log.batches(), None):
        if rows.time_format is not None:
            return rows.time_format
        if not is_lenient:
            rejects.add(rows.bad)
    return None


def _guess(times: pl.Series) -> TimeFormat | None:
    known = times.filter(times.str.strip_chars() != "")
    return None if known.is_empty() else guess_time_format(known[0])


def _checked(batch: RowBatch, time_format: TimeFormat | None) -> CheckedRows:
    frame = batch.frame
    faults = [_id_fault(USER), _id_fault(ITEM)]
    if TIME in frame.columns:
        read = (
            time_format.microseconds(frame[TIME]) if time_format else pl.Series([None] * frame.height, dtype=pl.Int64)
        )
        frame = frame.with_columns(read.alias(TIME + _READ))
        faults.append(_value_fault(TIME, f"is not between 1980 and tomorrow as {time_format}"))
    if RATING in frame.columns:
        rating = pl.col(RATING).cast(pl.Float32, strict=False)
        frame = frame.with_columns(pl.when(rating.is_finite()).then(rating).alias(RATING + _READ))
        faults.append(_value_fault(RATING, "is not a number"))
    frame = frame.with_columns(pl.concat_str(faults, separator=" and ", ignore_nulls=True).alias(_FAULT))
    is_good = frame[_FAULT] == ""
    bad = batch.bad
    if not is_good.all():
        contents = batch.frame.drop(LINE).filter(~is_good).rows()
        wrong = frame.filter(~is_good).select(LINE, _FAULT).rows()
        bad = bad + [
            BadRow(batch.file, line, fault, ", ".join(value or "" for value in content))
            for (line, fault), content in zip(wrong, contents, strict=True)
        ]
    read_columns = [pl.col(part + _READ).alias(part) for part in (TIME, RATING) if part in frame.columns]
    good = frame.filter(is_good).select(USER, ITEM, *read_columns)
    return CheckedRows(good, sorted(bad, key=lambda row: row.line), time_format)


def _id_fault(part: str) -> pl.Expr:
    column = pl.col(part)
    return (
        pl.when(column.is_null() | (column.str.strip_chars() == ""))
        .then(pl.lit(f"has no {part}"))
        .when(column.str.contains(_CONTROL_CHARACTERS))
        .then(pl.lit(f"has a control character in its {part}"))
    )


def _value_fault(part: str, wrong: str) -> pl.Expr:
    column = pl.col(part)
    return (
        pl.when(column.is_null() | (column.str.strip_chars() == ""))
        .then(pl.lit(f"has no {part}"))
        .when(pl.col(part + _READ).is_null())
        .then(pl.concat_str(pl.lit(f"has the {part} '"), column.str.slice(0, 60), pl.lit(f"', which {wrong}")))
    )


def numbered(parts: Path, num_rows: int) -> Interactions:
    """The log of good rows that wait on the disk.

    Args:
        parts: folder of `.parquet` files of them, whose names are in the order of the log.
        num_rows: of the whole log, good and bad.

    Raises:
        DataError: there is no good row.
    """
    if not any(parts.glob("*.parquet")):
        raise DataError(f"none of {num_rows:,} rows is an interaction; check the columns and the file.")
    scan = pl.scan_parquet(parts / "*.parquet")
    ids = {part: natural_order(scan.select(part).unique().collect(engine="streaming")[part]) for part in (USER, ITEM)}
    frames = []
    for part, known in ids.items():
        numbers = pl.LazyFrame({part: known, "number": pl.int_range(known.len(), dtype=pl.UInt32, eager=True)})
        joined = scan.select(part).join(numbers, on=part, how="left", maintain_order="left").select("number")
        frames.append(joined.collect(engine="streaming")["number"].alias(part))
    names = scan.collect_schema().names()
    rest = [name for name in (TIME, RATING) if name in names]
    events = pl.DataFrame(frames)
    if rest:
        events = events.hstack(scan.select(rest).collect(engine="streaming"))
    if TIME not in names:
        events = events.insert_column(2, pl.int_range(events.height, dtype=pl.Int64, eager=True).alias(TIME))
    return Interactions(ids[USER].to_list(), ids[ITEM].to_list(), events, TIME in names)
