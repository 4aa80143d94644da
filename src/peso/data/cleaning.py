"""What is left out of a log before it is cut into blocks, step by step, with counts."""

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from peso.data.interactions import ITEM, RATING, TIME, USER, Interactions
from peso.errors import DataError

_ROW = "row"


@dataclass(frozen=True)
class CleaningRules:
    """What stays.

    Attributes:
        min_rating: events rated lower are left out; None keeps all.
        min_user_events: users with fewer are left out; at least 2, a history and a target.
        min_item_events: items with fewer are left out.
    """

    min_rating: float | None = None
    min_user_events: int = 2
    min_item_events: int = 1


@dataclass(frozen=True)
class CleaningStep:
    """What one step left.

    Attributes:
        step: what was done.
        num_events: left after it.
        num_users: with events after it.
        num_items: with events after it.
    """

    step: str
    num_events: int
    num_users: int
    num_items: int


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What is left.

    Attributes:
        interactions: sorted by user and, within a user, by time; equal times in the order of the log.
        steps: the log as read, then every step.
    """

    interactions: Interactions
    steps: list[CleaningStep]

    def records(self) -> list[dict[str, Any]]:
        """The steps as JSON values."""
        return [asdict(step) for step in self.steps]


def clean(log: Interactions, rules: CleaningRules) -> Cleaned:
    """Leaves out low ratings, repeated rows, and, until nothing changes, users and items with too few events.

    Args:
        log: as read.
        rules: what stays.

    Raises:
        DataError: nothing is left, or a rating is asked for where there is none.
    """
    if rules.min_rating is not None and RATING not in log.events.columns:
        raise DataError("--min-rating needs ratings; say which column holds them with --rating.")
    steps = [_step("read", log)]
    if rules.min_rating is not None:
        log = log.keep(log.events[RATING] >= rules.min_rating)
        steps.append(_step(f"rated at least {rules.min_rating:g}", log))
    log = _in_order(log)
    if log.has_times:
        log = _without_repeated_rows(log)
        steps.append(_step("no row twice", log))
    log = _core(log, rules)
    steps.append(_step(f"{rules.min_user_events} events per user, {rules.min_item_events} per item", log))
    if log.num_events == 0:
        left = "; ".join(f"{step.step}: {step.num_events:,} events" for step in steps)
        raise DataError(f"cleaning leaves nothing ({left}); ask for fewer events per user or item, or a lower rating.")
    return Cleaned(log.compact(), steps)


def _in_order(log: Interactions) -> Interactions:
    events = log.events.drop(RATING, strict=False)
    return Interactions(log.user_ids, log.item_ids, events.sort(USER, TIME, maintain_order=True), log.has_times)


def _without_repeated_rows(log: Interactions) -> Interactions:
    """Of the rows with one user, item and time, the first."""
    events = log.events.with_row_index(_ROW).sort(USER, TIME, ITEM, _ROW)
    is_first = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in (USER, TIME, ITEM)).fill_null(True)
    kept = events.filter(is_first)
    if kept.height == events.height:
        return log
    return Interactions(log.user_ids, log.item_ids, kept.sort(_ROW).drop(_ROW), log.has_times)


def _core(log: Interactions, rules: CleaningRules) -> Interactions:
    while True:
        users = pl.len().over(USER) >= rules.min_user_events
        items = pl.len().over(ITEM) >= rules.min_item_events
        is_kept = log.events.select(users & items).to_series()
        if is_kept.all():
            return log
        log = log.keep(is_kept)


def _step(name: str, log: Interactions) -> CleaningStep:
    return CleaningStep(name, log.num_events, log.events[USER].n_unique(), log.events[ITEM].n_unique())
