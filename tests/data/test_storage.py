"""A data set survives the disk, and damage is noticed."""

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


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="holds no data"):
        load_dataset(tmp_path / "data")
