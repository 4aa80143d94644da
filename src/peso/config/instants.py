"""Instants in a configuration: a date or a date with a time of day, UTC unless it says otherwise."""

import datetime as dt
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def read_instant(value: Any) -> dt.datetime:
    """An aware time in UTC of a date, a time or a text such as `2024-03-09` or `2024-03-09T17:05`.

    Raises:
        ValueError: it is no date.
    """
    instant = value
    try:
        if isinstance(value, str):
            instant = dt.datetime.fromisoformat(value)
        elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            instant = dt.datetime(value.year, value.month, value.day)
        if isinstance(instant, dt.datetime):
            return (instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):  # in UTC the first and last days of the calendar may lie beyond it
        pass
    raise ValueError(f"{value!r} is no date; write it like 2024-03-09 or 2024-03-09T17:05")


def microseconds(instant: dt.datetime) -> int:
    """Since 1970.

    Args:
        instant: aware.
    """
    return (instant - _EPOCH) // dt.timedelta(microseconds=1)


Instant = Annotated[
    dt.datetime, BeforeValidator(read_instant), PlainSerializer(lambda instant: instant.isoformat(), return_type=str)
]
"""Aware and in UTC; written in ISO form."""
