"""Tries in files: what was written comes back, mapped; what does not fit is refused in a sentence."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from peso.decoding.trie import build_trie
from peso.decoding.trie_file import build_trie_from_parquet, load_trie, save_trie
from peso.errors import DataError, WorkspaceError
from tries import assert_equal
from worlds import tiny_codes


def write_table(path: Path, changes: dict[str, pl.Series] | None = None) -> Path:
    codes = tiny_codes()[::-1]
    columns = {"level_1": codes[:, 0], "level_2": codes[:, 1].astype(np.uint16), "level_3": codes[:, 2]}
    table = pl.DataFrame({"item": np.arange(40)[::-1], **columns, "title": ["a"] * 40})
    table.with_columns(**(changes or {})).write_parquet(path)
    return path


def test_a_table_gives_the_trie_of_its_rows(tmp_path: Path) -> None:
    trie = build_trie_from_parquet(write_table(tmp_path / "codes.parquet"), num_levels=3)
    assert_equal(trie, build_trie(tiny_codes(), np.arange(40)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level_2": pl.Series(["x"] * 40)}, "codes.parquet: column 'level_2' holds String"),
        ({"level_2": pl.Series([None, *[0] * 39])}, "column 'level_2' has 1 nulls"),
        ({"level_1": pl.Series([-3, *[0] * 39])}, "column 'level_1' holds -3"),
        ({"item": pl.Series([-1, *range(39)])}, "column 'item' holds -1"),
        ({"item": pl.Series([5, 5, *range(6, 44)])}, "item number 5 is listed twice"),
        ({f"level_{level}": pl.Series([7, 7, *range(8, 46)]) for level in (1, 2, 3)}, "items number 38 and 39 share"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, pl.Series], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_trie_from_parquet(write_table(tmp_path / "codes.parquet", changes), num_levels=3)


def test_a_missing_column_or_file_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "codes.parquet")
    with pytest.raises(DataError, match="column 'level_4' is missing"):
        build_trie_from_parquet(path, num_levels=4)
    with pytest.raises(DataError, match="does not exist"):
        build_trie_from_parquet(tmp_path / "none.parquet", num_levels=3)
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        build_trie_from_parquet(path, num_levels=3)


def test_a_saved_trie_comes_back(tmp_path: Path) -> None:
    trie = build_trie(tiny_codes(60, (70, 2)), np.arange(3, 60))
    save_trie(trie, tmp_path / "trie.safetensors")
    assert_equal(load_trie(tmp_path / "trie.safetensors"), trie)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs the list of mapped files")
def test_a_loaded_trie_lies_in_the_mapped_file(tmp_path: Path) -> None:
    path = tmp_path / "trie.safetensors"
    save_trie(build_trie(tiny_codes(60, (70, 2)), np.arange(60)), path)
    trie = load_trie(path)
    ranges = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
    ]
    for array in (*trie.offsets, *trie.codes, trie.leaf_items, trie.known_items, trie.known_leaves):
        assert any(int(first, 16) <= array.data_ptr() < int(last, 16) for first, last in ranges)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_cut_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "trie.safetensors"
    save_trie(build_trie(tiny_codes(), np.arange(40)), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WorkspaceError, match="not a whole trie file"):
        load_trie(path)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="does not exist"):
        load_trie(tmp_path / "none")
    save_file({"codes": torch.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(WorkspaceError, match="format"):
        load_trie(tmp_path / "foreign")
    facts = {"format": "peso trie 1", "facts": '{"max_children": [2], "num_codes": [2]}'}
    arrays = ("leaf_items", "known_items", "known_leaves", "codes.0", "offsets.0")
    wrong = {name: torch.zeros(2, dtype=torch.int32) for name in arrays}
    save_file(wrong, tmp_path / "short", facts)
    with pytest.raises(WorkspaceError, match="not a whole trie file"):
        load_trie(tmp_path / "short")
    save_file({**wrong, "bitmasks.0": torch.zeros(0, 0, dtype=torch.uint8)}, tmp_path / "unfit", facts)
    with pytest.raises(WorkspaceError, match="do not fit together"):
        load_trie(tmp_path / "unfit")
