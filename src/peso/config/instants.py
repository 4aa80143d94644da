"""Instants in a configuration: a date or a date with a time of day, UTC unless it says otherwise."""

import datetime as dt
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def read_instant(value: Any) -> Any:
    """An aware time in UTC of a date, a time or a text such as `2024-03-09` or `2024-03-09T17:05`.

    Raises:
        ValueError: the text is no date.
    """
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is no date; write it like 2024-03-09 or 2024-03-09T17:05") from None
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    elif not isinstance(value, dt.datetime):
        raise ValueError(f"{value!r} is no date; write it like 2024-03-09 or 2024-03-09T17:05")
    return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)


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
