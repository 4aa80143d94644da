"""From batches of rows to one log: every row is checked, the good ones are kept on disk, and numbered at the end."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from peso.data.interactions import ITEM, RATING, TIME, USER, Interactions, natural_order
from peso.data.sources.bad_rows import BadRow, Rejects
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


def read_log(batches: Iterable[RowBatch], rejects: Rejects, time_format: TimeFormat | None = None) -> ReadLog:
    """Reads a log of any length; what is held in memory at the end is 20 bytes per row, and the ids.

    Args:
        batches: of one or several files, with equal columns.
        rejects: takes the bad rows.
        time_format: None to guess it from the first time.

    Raises:
        DataError: there is no good row, or there are bad rows that must not be set aside.
    """
    num_rows = 0
    with tempfile.TemporaryDirectory(prefix="peso-import-") as name:
        parts = Path(name)
        for number, batch in enumerate(batches):
            if time_format is None and TIME in batch.frame.columns:
                time_format = _guess(batch.frame[TIME])
            num_rows += batch.frame.height + len(batch.bad)
            good = _good_rows(batch, time_format, rejects)
            if good.height:
                good.write_parquet(parts / f"{number:06}.parquet", compression="lz4")
        rejects.stop_if_any()
        if not any(parts.iterdir()):
            raise DataError(f"none of {num_rows:,} rows is an interaction; check the columns and the file.")
        return ReadLog(_numbered(parts), num_rows, time_format)


def _guess(times: pl.Series) -> TimeFormat | None:
    known = times.filter(times.str.strip_chars() != "")
    return None if known.is_empty() else guess_time_format(known[0])


def _good_rows(batch: RowBatch, time_format: TimeFormat | None, rejects: Rejects) -> pl.DataFrame:
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
    rejects.add(sorted(bad, key=lambda row: row.line))
    read_columns = [pl.col(part + _READ).alias(part) for part in (TIME, RATING) if part in frame.columns]
    return frame.filter(is_good).select(USER, ITEM, *read_columns)


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


def _numbered(parts: Path) -> Interactions:
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
