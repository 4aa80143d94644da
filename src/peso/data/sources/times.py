"""Times as they stand in logs, to microseconds since 1970 (UTC)."""

import datetime as dt
from dataclasses import dataclass

import polars as pl

from peso.errors import DataError

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}
_EARLIEST = dt.datetime(1980, 1, 1, tzinfo=dt.UTC)
_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%z",
    "%Y-%m-%dT%H:%M:%S%z",
    "%Y-%m-%d %H:%M:%S%.f%z",
    "%Y-%m-%dT%H:%M:%S%.f%z",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y%m%d",
)


@dataclass(frozen=True)
class TimeFormat:
    """How a log writes its times.

    Attributes:
        unit: of numbers since 1970, one of `UNITS`; None for text.
        pattern: of text, as strftime writes it; None for numbers.
    """

    unit: str | None
    pattern: str | None

    def __str__(self) -> str:
        """In words."""
        return f"numbers of {self.unit} since 1970" if self.unit else f"text such as {self.pattern}"

    def microseconds(self, times: pl.Series) -> pl.Series:
        """Reads times.

        Args:
            times: String, nulls where missing.

        Returns:
            Int64, null where missing, unreadable, before 1980, or later than tomorrow.
        """
        if self.unit is not None:
            whole = times.cast(pl.Int64, strict=False)
            exact = whole * int(UNITS[self.unit]) if self.unit != "ns" else whole // 1000
            read = exact
            if whole.null_count() > times.null_count():
                inexact = (times.cast(pl.Float64, strict=False) * UNITS[self.unit]).cast(pl.Int64, strict=False)
                read = exact.fill_null(inexact)
        else:
            read = _parsed(times, str(self.pattern)).cast(pl.Int64)
        latest = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
        is_possible = read.is_between(_microseconds(_EARLIEST), _microseconds(latest))
        return pl.select(pl.when(is_possible).then(read)).to_series()


def guess_time_format(sample: str) -> TimeFormat:
    """The format in which one time reads as one between 1980 and tomorrow.

    Args:
        sample: the first time of a log.

    Raises:
        DataError: it reads so in no format known here.
    """
    times = pl.Series([sample], dtype=pl.String)
    formats = [TimeFormat(unit, None) for unit in UNITS] + [TimeFormat(None, pattern) for pattern in _FORMATS]
    for candidate in formats:
        if candidate.microseconds(times).null_count() == 0:
            return candidate
    raise DataError(
        f"time {sample!r} is no number since 1970 and no date such as 2024-03-09 17:05:00; give --time-format, "
        "or --time-unit if it is a number."
    )


def choose_time_format(unit: str | None, pattern: str | None) -> TimeFormat | None:
    """The format that was asked for, None for none.

    Raises:
        DataError: both were given, the unit is unknown, or the pattern gives no date.
    """
    if unit is not None and pattern is not None:
        raise DataError("--time-unit is for numbers and --time-format for text; give one of them.")
    if unit is not None and unit not in UNITS:
        raise DataError(f"--time-unit {unit!r} is not one of {', '.join(UNITS)}.")
    if pattern is not None:
        try:
            written = dt.datetime(2020, 2, 3, tzinfo=dt.UTC).strftime(pattern.replace("%.f", "%f"))
            is_date = _parsed(pl.Series([written]), pattern).null_count() == 0
        except (pl.exceptions.PolarsError, ValueError):
            is_date = False
        if not is_date:
            raise DataError(f"--time-format {pattern!r} gives no date; write it as in %Y-%m-%d %H:%M:%S.")
    return TimeFormat(unit, pattern) if unit or pattern else None


def _parsed(times: pl.Series, pattern: str) -> pl.Series:
    if "%z" in pattern:
        return times.str.to_datetime(pattern, strict=False, time_unit="us", time_zone="UTC")
    if "%H" in pattern or "%I" in pattern:
        return times.str.to_datetime(pattern, strict=False, time_unit="us")
    return times.str.to_date(pattern, strict=False).cast(pl.Datetime("us"))


def _microseconds(time: dt.datetime) -> int:
    return int(time.timestamp()) * 1_000_000
