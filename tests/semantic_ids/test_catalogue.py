"""Semantic IDs of a catalogue: who keeps a code, what the disk keeps, and what is noticed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from peso.data.dataset import Dataset
from peso.errors import DataError, WorkspaceError
from peso.semantic_ids.catalogue import SemanticIds, build_semantic_ids, code_token, load_semantic_ids

ITEM_IDS = ["p", "q", "r"]


def three_items() -> Dataset:
    """Item 0 occurs in block 1 only, item 1 in block 0, item 2 never."""
    return Dataset(["u"], ITEM_IDS, [""] * 3, np.array([0, 0]), np.array([1, 0]), np.array([0, 1]), 2)


def semantic_ids() -> SemanticIds:
    return build_semantic_ids(three_items(), np.array([[1, 2], [1, 2], [1, 2]]), (2, 4))


def test_the_item_of_the_earliest_block_keeps_its_code() -> None:
    ids = semantic_ids()
    assert ids.codes.tolist() == [[1, 3], [1, 2], [1, 0]]
    assert ids.source_codes.tolist() == [[1, 2]] * 3
    assert (ids.num_items, ids.num_levels, ids.num_moved) == (3, 2, 2)


def test_text() -> None:
    assert semantic_ids().text(0) == "<a_1><b_3>"
    assert [code_token(level, 7) for level in (0, 25, 26)] == ["<a_7>", "<z_7>", "<27_7>"]


def test_codes_that_do_not_fit_the_items_are_refused() -> None:
    with pytest.raises(DataError, match="one code per level"):
        build_semantic_ids(three_items(), np.zeros((2, 2), dtype=np.int64), (2, 4))
    with pytest.raises(DataError, match="one code per level"):
        build_semantic_ids(three_items(), np.zeros((3, 2), dtype=np.int64), (2, 4, 4))


def test_round_trip(tmp_path: Path) -> None:
    ids = semantic_ids()
    ids.save(tmp_path, ITEM_IDS)
    loaded = load_semantic_ids(tmp_path, ITEM_IDS)
    assert loaded.fingerprint == ids.fingerprint
    assert loaded.codes.tolist() == ids.codes.tolist()
    assert loaded.source_codes.tolist() == ids.source_codes.tolist()
    assert loaded.level_sizes == ids.level_sizes
    columns = ["item_id", "level_1", "level_2", "source_level_1", "source_level_2"]
    assert pl.read_parquet(tmp_path / "codes.parquet").columns == columns


def test_fingerprint_sees_every_part() -> None:
    ids = semantic_ids()
    others = [
        SemanticIds(ids.codes[::-1], ids.source_codes, ids.level_sizes),
        SemanticIds(ids.codes, ids.codes, ids.level_sizes),
        SemanticIds(ids.codes, ids.source_codes, (2, 5)),
    ]
    assert ids.fingerprint not in {other.fingerprint for other in others}


def test_other_items_are_refused(tmp_path: Path) -> None:
    semantic_ids().save(tmp_path, ITEM_IDS)
    with pytest.raises(DataError, match="are of other items"):
        load_semantic_ids(tmp_path, ["q", "p", "r"])


def change_a_code(folder: Path) -> None:
    codes = pl.read_parquet(folder / "codes.parquet").with_columns(level_2=pl.Series([3, 2, 1]))
    codes.write_parquet(folder / "codes.parquet")


def drop_a_level(folder: Path) -> None:
    pl.read_parquet(folder / "codes.parquet").drop("level_1").write_parquet(folder / "codes.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_a_code, "wrong fingerprint"),
        (drop_a_level, "codes.parquet is damaged"),
        (lambda folder: (folder / "codes.parquet").unlink(), "codes.parquet cannot be read"),
        (lambda folder: (folder / "semantic_ids.json").unlink(), "semantic_ids.json does not exist"),
        (lambda folder: (folder / "semantic_ids.json").write_text("[]"), "no valid 'level_sizes'"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    semantic_ids().save(tmp_path, ITEM_IDS)
    damage(tmp_path)
    with pytest.raises(WorkspaceError, match=message):
        load_semantic_ids(tmp_path, ITEM_IDS)
