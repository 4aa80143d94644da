"""Chronological cuts: which block each event falls into."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl

from peso.config.instants import microseconds, read_instant
from peso.data.dataset import IntArray
from peso.errors import DataError

PeriodName = Literal["day", "week", "month"]
_PERIODS: dict[str, str] = {"day": "1d", "week": "1w", "month": "1mo"}


@dataclass(frozen=True)
class BlockRules:
    """How a log is cut.

    Attributes:
        base_share: share of the events that block 0 holds at least, unless `cuts` says where it ends.
        num_updates: later blocks of equal share, where neither `every` nor `cuts` is given.
        every: a later block per day, week (from Monday) or month of UTC, or per so many events.
        cuts: first instants of blocks 1, 2, ..., microseconds since 1970, increasing.
    """

    base_share: float = 0.6
    num_updates: int = 4
    every: PeriodName | int | None = None
    cuts: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Blocks:
    """A cut log.

    Attributes:
        block: int64, one per event in the order given; every number from 0 to the highest occurs.
        starts: first time of each block, int64 [num_blocks]; block b holds the times from starts[b] up to, without it,
            starts[b + 1].
    """

    block: IntArray
    starts: IntArray


def cut_into_blocks(times: IntArray, rules: BlockRules, has_times: bool = True) -> Blocks:
    """Cuts by time alone, so that no event of a block is as early as one of an earlier block, whoever's they are.

    Events of one instant are never parted, so shares hold up to the size of such a group. Periods without an event give
    no block.

    Args:
        times: int64 [E], microseconds since 1970, or any increasing number where there are no times.
        rules: how.
        has_times: whether periods and cuts can be meant.

    Raises:
        DataError: the rules do not fit the times.
    """
    if not has_times and (rules.cuts or isinstance(rules.every, str)):
        raise DataError("blocks by date need times; say which column holds them with --time.")
    ordered = np.sort(times)
    if rules.cuts:
        starts = np.array(rules.cuts, dtype=np.int64)
    elif rules.every is None:
        shares = rules.base_share + (1 - rules.base_share) * np.arange(rules.num_updates) / rules.num_updates
        starts = ordered[np.minimum(np.ceil(shares * len(ordered)).astype(np.int64), len(ordered) - 1)]
    elif isinstance(rules.every, int):
        first = int(np.ceil(rules.base_share * len(ordered)))
        starts = ordered[first :: rules.every]
    else:
        starts = _periods(ordered, rules)
    starts = np.unique(np.r_[ordered[0], starts])
    block = np.searchsorted(starts, times, side="right") - 1
    used, block = np.unique(block, return_inverse=True)
    if used.size < 2:
        raise DataError(
            f"all {len(times):,} events fall into one block; there is nothing to update on; cut differently or "
            "bring events of other times."
        )
    if not rules.cuts and rules.every is None and used.size != rules.num_updates + 1:
        raise DataError(
            f"{len(np.unique(times)):,} different times do not give {rules.num_updates} blocks behind a base of "
            f"{rules.base_share:.0%}; ask for fewer, or cut by dates."
        )
    return Blocks(block.astype(np.int64), np.maximum(starts, ordered[0])[used])


def read_cuts(texts: Sequence[str]) -> tuple[int, ...]:
    """Instants such as `2024-03-09` or `2024-03-09T17:05`, UTC unless they say otherwise, in microseconds since 1970.

    Raises:
        DataError: one is no date, or they do not increase.
    """
    cuts: list[int] = []
    for text in texts:
        try:
            cut = microseconds(read_instant(text))
        except ValueError as error:
            raise DataError(f"--cut {error}.") from None
        if cuts and cut <= cuts[-1]:
            raise DataError(f"--cut {text!r} is not later than the one before it; give them in order.")
        cuts.append(cut)
    return tuple(cuts)


def read_every(text: str | None) -> PeriodName | int | None:
    """`day`, `week`, `month` or a number of events.

    Raises:
        DataError: it is neither.
    """
    if text is None or text in get_args(PeriodName):
        return text  # type: ignore[return-value]
    if text.isascii() and text.isdecimal() and 0 < int(text) < 2**62:
        return int(text)
    raise DataError(f"--every {text!r} is neither {', '.join(get_args(PeriodName))} nor a number of events.")


def _periods(ordered: IntArray, rules: BlockRules) -> IntArray:
    """First instants of the periods behind the one in which the base's share is reached."""
    length = _PERIODS[str(rules.every)]
    reached = int(ordered[min(int(np.ceil(rules.base_share * len(ordered))), len(ordered)) - 1])
    times = pl.Series(np.unique(ordered[ordered >= reached])).cast(pl.Datetime("us")).dt.truncate(length)
    return times.unique().sort().cast(pl.Int64).to_numpy()[1:].astype(np.int64)
