"""What cleaning leaves, and that blocks are cut by time alone."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.data.blocks import BlockRules, cut_into_blocks, read_cuts, read_every
from peso.data.cleaning import CleaningRules, clean
from peso.data.interactions import Interactions, natural_order
from peso.errors import DataError

DAY = 24 * 3600 * 1_000_000


def log_of(rows: list[tuple[int, int, int]], ratings: list[float] | None = None) -> Interactions:
    schema = {"user": pl.UInt32, "item": pl.UInt32, "time": pl.Int64}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    if ratings is not None:
        events = events.with_columns(pl.Series("rating", ratings, dtype=pl.Float32))
    users, items = (range(1 + max(row[place] for row in rows)) for place in (0, 1))
    return Interactions([f"u{user}" for user in users], [f"i{item}" for item in items], events, True)


def test_cleaning_by_hand() -> None:
    rows = [(1, 0, 5), (0, 0, 3), (0, 1, 1), (0, 0, 3), (0, 2, 2), (1, 1, 4), (2, 2, 9)]
    cleaned = clean(log_of(rows, [5, 5, 5, 5, 1, 5, 5]), CleaningRules(min_rating=3))
    kept = cleaned.interactions
    # The rating drops (0, 2), the repeated (0, 0) goes, and then user 2 has one event and leaves with item 2.
    assert (kept.user_ids, kept.item_ids) == (["u0", "u1"], ["i0", "i1"])
    assert kept.events.rows() == [(0, 1, 1), (0, 0, 3), (1, 1, 4), (1, 0, 5)]
    assert [step.num_events for step in cleaned.steps] == [7, 6, 5, 4]
    assert [step.num_users for step in cleaned.steps] == [3, 3, 3, 2]


def test_core_goes_on_until_nothing_changes() -> None:
    # Without user 2, item 2 has one event; without it, user 1 has one.
    rows = [(0, 0, 1), (0, 1, 2), (1, 0, 3), (1, 2, 4), (2, 2, 5), (3, 0, 6), (3, 1, 7)]
    cleaned = clean(log_of(rows), CleaningRules(min_user_events=2, min_item_events=2))
    assert cleaned.interactions.user_ids == ["u0", "u3"]


def test_nothing_left_and_no_ratings() -> None:
    with pytest.raises(DataError, match=r"leaves nothing .*2 events per user.*: 0 events"):
        clean(log_of([(0, 0, 1), (1, 0, 2)]), CleaningRules())
    with pytest.raises(DataError, match="needs ratings"):
        clean(log_of([(0, 0, 1), (0, 1, 2)]), CleaningRules(min_rating=1))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 9)), min_size=1), st.integers(1, 3))
def test_what_is_left_is_a_core_in_order(rows: list[tuple[int, int, int]], least: int) -> None:
    try:
        kept = clean(log_of(rows), CleaningRules(min_user_events=2, min_item_events=least)).interactions
    except DataError:
        return
    events = kept.events
    assert events["user"].value_counts()["count"].min() >= 2  # type: ignore[operator]
    assert events["item"].value_counts()["count"].min() >= least  # type: ignore[operator]
    assert events.equals(events.sort("user", "time", maintain_order=True))
    assert events.is_unique().all()
    assert events["user"].n_unique() == len(kept.user_ids)
    assert events["item"].n_unique() == len(kept.item_ids)


def test_shares() -> None:
    cut = cut_into_blocks(np.arange(100) * DAY, BlockRules())
    assert np.bincount(cut.block).tolist() == [60, 10, 10, 10, 10]
    assert cut.starts.tolist() == [0, 60 * DAY, 70 * DAY, 80 * DAY, 90 * DAY]


def test_periods_begin_behind_the_one_that_completes_the_base() -> None:
    days = [dt.datetime(2024, month, day, tzinfo=dt.UTC) for month in (1, 2, 3, 6) for day in (3, 20)]
    times = np.array([round(day.timestamp()) * 1_000_000 for day in days])
    cut = cut_into_blocks(times, BlockRules(base_share=0.3, every="month"))
    assert cut.block.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]  # February completes the base; April and May hold nothing
    assert cut.starts[1:].tolist() == list(read_cuts(["2024-03-01", "2024-06-01"]))
    assert cut_into_blocks(times, BlockRules(base_share=0.5, every=3)).block.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert cut_into_blocks(times, BlockRules(cuts=read_cuts(["2024-06-01"]))).block.tolist() == [0] * 6 + [1] * 2


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=60),
    st.sampled_from([BlockRules(), BlockRules(0.3, 2), BlockRules(every="week"), BlockRules(every=5)])
    | st.builds(BlockRules, cuts=st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True).map(
        lambda cuts: tuple(sorted(cut * DAY for cut in cuts))
    )),
)  # fmt: skip
def test_no_block_holds_an_event_as_early_as_an_earlier_block(days: list[int], rules: BlockRules) -> None:
    times = np.array(days, dtype=np.int64) * DAY
    try:
        cut = cut_into_blocks(times, rules)
    except DataError:
        return
    assert sorted(set(cut.block.tolist())) == list(range(len(cut.starts)))
    for block in range(1, len(cut.starts)):
        assert times[cut.block < block].max() < cut.starts[block] <= times[cut.block == block].min()


def test_wrong_cuts() -> None:
    times = np.array([DAY, DAY, DAY])
    for rules, message in (
        (BlockRules(), "fall into one block"),
        (BlockRules(cuts=(5 * DAY,)), "fall into one block"),
    ):
        with pytest.raises(DataError, match=message):
            cut_into_blocks(times, rules)
    with pytest.raises(DataError, match="3 different times do not give 4 blocks"):
        cut_into_blocks(np.array([DAY, 2 * DAY, 3 * DAY]), BlockRules())
    with pytest.raises(DataError, match="need times"):
        cut_into_blocks(times, BlockRules(every="day"), has_times=False)
    with pytest.raises(DataError, match="is no date"):
        read_cuts(["soon"])
    with pytest.raises(DataError, match="not later"):
        read_cuts(["2024-02-01", "2024-01-01"])
    with pytest.raises(DataError, match="neither day, week, month nor"):
        read_every("year")
    assert (read_every("day"), read_every("500"), read_every(None)) == ("day", 500, None)


def test_natural_order() -> None:
    assert natural_order(pl.Series(["b", "10", "9", "007", "a"])).to_list() == ["9", "10", "007", "a", "b"]
