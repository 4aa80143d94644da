"""A data set survives the disk, and damage is noticed."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from peso.data.storage import load_dataset, save_dataset
from peso.errors import WorkspaceError
from worlds import tiny_dataset


def test_round_trip(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    save_dataset(dataset, tmp_path / "data")
    loaded = load_dataset(tmp_path / "data")
    assert loaded.fingerprint == dataset.fingerprint
    assert loaded.source == dataset.source


def test_damage_is_noticed(tmp_path: Path) -> None:
    save_dataset(tiny_dataset(), tmp_path / "data")
    events = pl.read_parquet(tmp_path / "data" / "events.parquet")
    events.head(len(events) - 1).write_parquet(tmp_path / "data" / "events.parquet")
    with pytest.raises(WorkspaceError, match="damaged"):
        load_dataset(tmp_path / "data")


def drop_a_column(folder: Path) -> None:
    pl.read_parquet(folder / "events.parquet").drop("block").write_parquet(folder / "events.parquet")


def name_an_unknown_item(folder: Path) -> None:
    events = pl.read_parquet(folder / "events.parquet").with_columns(item=pl.col("item") + 1000)
    events.write_parquet(folder / "events.parquet")


def leave_a_gap(folder: Path) -> None:
    users = pl.read_parquet(folder / "users.parquet")
    users.with_columns(user_id=users["user_id"].shift(1)).write_parquet(folder / "users.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_a_column, r"events.parquet is damaged: its columns \['user', 'item'\]"),
        (name_an_unknown_item, "damaged"),
        (leave_a_gap, "users.parquet is damaged.*without gaps"),
        (lambda folder: (folder / "items.parquet").unlink(), "items.parquet cannot be read"),
        (lambda folder: (folder / "items.parquet").write_bytes(b"PAR1"), "items.parquet cannot be read"),
        (lambda folder: (folder / "dataset.json").write_text("{}"), "has no valid 'num_blocks'"),
        (lambda folder: (folder / "dataset.json").write_text('{"num_'), "not valid JSON"),
    ],
)
def test_every_damage_is_one_sentence(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    save_dataset(tiny_dataset(), tmp_path)
    damage(tmp_path)
    with pytest.raises(WorkspaceError, match=message):
        load_dataset(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="holds no data"):
        load_dataset(tmp_path / "data")
