"""When items were first taken: by the log, in its table, and in whatever goes on from it."""

import datetime as dt
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from commands import output_of
from peso.config import make_config
from peso.config.instants import microseconds, read_instant
from peso.data.interactions import Interactions
from peso.data.item_times import TIMES_FILE, first_times, load_item_times, save_item_times
from peso.data.storage import load_dataset
from peso.errors import ConfigError, DataError, WorkspaceError

ROWS = [
    # user, item, time, rating
    ("ann", "hose", "2024-03-01", 5),
    ("ann", "rake", "2024-03-02", 5),
    ("bob", "rake", "2024-02-20", 1),  # before anyone liked it
    ("bob", "hose", "2024-03-03", 4),
    ("bob", "pan", "2024-03-04", 5),
    ("cat", "pan", "2024-03-05", 5),
    ("cat", "rake", "2024-03-06", 4),
    ("dan", "knife", "2024-01-01", 5),  # alone, and left out
]


def written(path: Path, rows: list[tuple[str, str, str, int]]) -> Path:
    pl.DataFrame(rows, schema=["user", "item", "time", "rating"], orient="row").write_csv(path)
    return path


def imported(tmp_path: Path) -> Path:
    log = written(tmp_path / "log.csv", ROWS)
    columns = ["--user", "user", "--item", "item", "--time", "time", "--rating", "rating"]
    output_of("import", "table", log, *columns, "--min-rating", "4", "--cut", "2024-03-04", "-w", tmp_path / "w")
    return tmp_path / "w" / "data"


def times_in(data: Path) -> dict[str, str]:
    frame = pl.read_parquet(data / TIMES_FILE)
    return dict(zip(frame["item_id"], frame["first_time"].dt.strftime("%Y-%m-%dT%H:%M"), strict=True))


def test_an_item_is_as_old_as_its_first_event_in_the_log(tmp_path: Path) -> None:
    data = imported(tmp_path)
    assert times_in(data) == {"hose": "2024-03-01T00:00", "pan": "2024-03-04T00:00", "rake": "2024-02-20T00:00"}
    items = load_dataset(data).item_ids
    times = load_item_times(data, items)
    assert times[list(items).index("rake")] == microseconds(read_instant("2024-02-20"))


INSTANTS = [
    # user, item, seconds since 1970
    ("1", "7", 1709332200),  # 2024-03-01T22:30 in UTC, the day after in Athens
    ("1", "8", 1709424000),
    ("2", "8", 1709510400),
    ("2", "7", 1709596800),
]


def lines(rows: Iterable[object]) -> str:
    return "".join(f"{row}\n" for row in rows)


def in_athens(seconds: int) -> str:
    moment = read_instant("1970-01-01") + dt.timedelta(seconds=seconds)
    return moment.astimezone(dt.timezone(dt.timedelta(hours=2))).isoformat()


@pytest.mark.parametrize("source", ["s", "ms", "zone", "amazon-2018", "amazon-2023", "movielens"])
def test_every_log_with_times_gives_the_same(source: str, tmp_path: Path) -> None:
    log, kind = tmp_path / "log.csv", source if "-" in source or source == "movielens" else "table"
    columns: list[str] = []
    if source == "amazon-2018":
        log = tmp_path / "log.json"
        names = ("reviewerID", "asin", "unixReviewTime")
        log.write_text(lines(json.dumps(dict(zip(names, row, strict=True)) | {"overall": 5.0}) for row in INSTANTS))
    elif source == "amazon-2023":
        log = tmp_path / "log.jsonl"
        rows = [{"user_id": user, "parent_asin": item, "timestamp": 1000 * time} for user, item, time in INSTANTS]
        log.write_text(lines(json.dumps(row | {"rating": 5.0}) for row in rows))
    elif source == "movielens":
        log = tmp_path
        rated = [f"{user},{item},5,{time}" for user, item, time in INSTANTS]
        (log / "ratings.csv").write_text(lines(["userId,movieId,rating,timestamp", *rated]))
        (log / "movies.csv").write_text(lines(["movieId,title,genres", "7,Hose,Drama", "8,Rake,Drama"]))
    else:
        ways: dict[str, Callable[[int], str]] = {"s": str, "ms": lambda time: str(1000 * time), "zone": in_athens}
        written_as = ways[source]
        log.write_text(
            lines(["user,item,time", *(f"{user},{item},{written_as(time)}" for user, item, time in INSTANTS)])
        )
        columns = ["--user", "user", "--item", "item", "--time", "time"]
    output_of("import", kind, log, *columns, "--cut", "2024-03-03", "-w", tmp_path / "w")
    assert times_in(tmp_path / "w" / "data") == {"7": "2024-03-01T22:30", "8": "2024-03-03T00:00"}


def test_an_import_from_before_times_were_kept_gets_them(tmp_path: Path) -> None:
    data = imported(tmp_path)
    before = (data / TIMES_FILE).read_bytes()
    for spoilt in (None, b"no table"):
        (data / TIMES_FILE).unlink()
        if spoilt is not None:
            (data / TIMES_FILE).write_bytes(spoilt)
        imported(tmp_path)
        assert (data / TIMES_FILE).read_bytes() == before


def test_a_log_without_times_has_none(tmp_path: Path) -> None:
    events = pl.DataFrame({"user": [0, 0], "item": [0, 1], "time": [0, 1]})
    assert first_times(Interactions(["u"], ["a", "b"], events, False), ["a", "b"]) is None
    save_item_times(tmp_path, ["a", "b"], None)
    with pytest.raises(WorkspaceError, match="holds no such times: import a log that has them"):
        load_item_times(tmp_path, ["a", "b"])


def test_damage_is_noticed(tmp_path: Path) -> None:
    save_item_times(tmp_path, ["a", "b"], np.array([1, 2]))
    assert load_item_times(tmp_path, ["a", "b"]).tolist() == [1, 2]
    with pytest.raises(DataError, match="are of other items"):
        load_item_times(tmp_path, ["b", "a"])
    (tmp_path / TIMES_FILE).write_bytes(b"no table")
    with pytest.raises(WorkspaceError, match="cannot be read"):
        load_item_times(tmp_path, ["a", "b"])


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-03-09", "2024-03-09T00:00:00+00:00"),
        ("2024-03-09T17:05:00", "2024-03-09T17:05:00+00:00"),
        ("2024-03-09T00:30:00+01:00", "2024-03-08T23:30:00+00:00"),
        ("2024-03-09T17:05:00Z", "2024-03-09T17:05:00+00:00"),
    ],
)
def test_dates_in_a_configuration(text: str, instant: str, tmp_path: Path) -> None:
    chosen = make_config(None, {"decoding": {"new_item_share": 0.2, "new_since": text}})
    assert chosen.model_dump(mode="json")["decoding"]["new_since"] == instant
    for written_as in (text.replace("T", " ") if "T" in text else text, f'"{text}"'):  # TOML has dates of its own
        (tmp_path / "run.toml").write_text(f"[decoding]\nnew_item_share = 0.2\nnew_since = {written_as}\n")
        assert make_config(tmp_path / "run.toml") == chosen


def test_wrong_dates_are_refused() -> None:
    assert "new_since" not in make_config(None, {}).model_dump(mode="json")["decoding"], "names of runs stay"
    for wrong in ("Yesterday", "2024-13-01", "0001-01-01T00:00+14:00", 20240309, True):
        with pytest.raises(ConfigError, match=r"decoding\.new_since.* is no date; write it like 2024-03-09"):
            make_config(None, {"decoding": {"new_item_share": 0.2, "new_since": wrong}})
    with pytest.raises(ConfigError, match=r"new_item_share 0 keeps nothing for them; give a share"):
        make_config(None, {"decoding": {"new_since": "2024-03-09"}})
