"""Tomorrow's items: unique codes near their kin, and not one old code or file changed."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from filelock import FileLock

from catalogues import shop_dataset
from peso.data.storage import save_dataset
from peso.errors import DataError, WorkspaceError
from peso.semantic_ids.added_items import load_added_items
from peso.semantic_ids.adding import add_items
from peso.semantic_ids.catalogue import build_semantic_ids, load_semantic_ids
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace

NEW_TITLES = ["steel bolt tiny", "nylon rope heavy duty", "steel bolt small no 0", "steel bolt small no 0", "Zimmerli"]


def table(folder: Path, titles: list[str], first: int = 0) -> Path:
    path = folder / f"new{first}.csv"
    pl.DataFrame({"item_id": [f"new {first + n}" for n in range(len(titles))], "title": titles}).write_csv(path)
    return path


@pytest.fixture(params=["rq-kmeans", "random"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save_dataset(shop_dataset(), tmp_path / "shop" / "data")
    encode_workspace(tmp_path / "shop", EncodingRequest("tfidf", request.param, (8, 4, 4)))
    return tmp_path / "shop"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_new_codes_are_unique_and_old_ones_stay(workspace: Path, tmp_path: Path) -> None:
    before = files_of(workspace / "data")
    ids = load_semantic_ids(workspace / "data" / "semantic_ids", shop_dataset().item_ids)
    facts = add_items(workspace, table(tmp_path, NEW_TITLES))
    assert (facts["num_added"], facts["num_items"], facts["num_without_vector"]) == (5, 65, 1)
    first = load_added_items(workspace, ids)
    assert list(first.titles) == NEW_TITLES
    assert add_items(workspace, table(tmp_path, ["copper pipe"], first=5))["num_items"] == 66
    second = load_added_items(workspace, ids)
    assert second.codes[:5].tolist() == first.codes.tolist()
    assert second.fingerprint != first.fingerprint
    together = np.concatenate([ids.codes, second.codes])
    assert len(np.unique(together, axis=0)) == 66
    assert files_of(workspace / "data") == before


def test_new_items_stand_near_their_kin(tmp_path: Path) -> None:
    save_dataset(shop_dataset(), tmp_path / "data")
    encode_workspace(tmp_path, EncodingRequest("tfidf", "rq-kmeans", (8, 4, 4)))
    ids = load_semantic_ids(tmp_path / "data" / "semantic_ids", shop_dataset().item_ids)
    facts = add_items(tmp_path, table(tmp_path, NEW_TITLES))
    twin = ids.source_codes[0]  # "steel bolt small no 0" has the very title of items 2 and 3 of the table
    added = load_added_items(tmp_path, ids)
    assert (added.codes[2:4, 0] == twin[0]).all()
    assert facts["num_moved"] >= 2
    assert facts["error_new"] > facts["error_old"] > 0


def test_refusals_change_nothing(workspace: Path, tmp_path: Path) -> None:
    add_items(workspace, table(tmp_path, NEW_TITLES))
    before = files_of(workspace)
    with pytest.raises(DataError, match="item 'new 0' has a code in this workspace already"):
        add_items(workspace, table(tmp_path, ["other"]))
    pl.DataFrame({"item_id": ["item 3"], "title": ["x"]}).write_csv(tmp_path / "old.csv")
    with pytest.raises(DataError, match="item 'item 3' has a code"):
        add_items(workspace, tmp_path / "old.csv")
    with pytest.raises(WorkspaceError, match="added_items holds items that speak in this workspace's present codes"):
        encode_workspace(workspace, EncodingRequest("tfidf", "rq-kmeans", (8, 8, 8)))
    with (
        FileLock(workspace / ".added_items.lock"),
        pytest.raises(WorkspaceError, match="another process is adding items"),
    ):
        add_items(workspace, table(tmp_path, ["bolt"], first=5))
    assert files_of(workspace) == before


def test_the_last_free_codes_are_found(workspace: Path, tmp_path: Path) -> None:
    facts = add_items(workspace, table(tmp_path, ["bolt"] * 68))
    assert (facts["num_items"], facts["num_new_codes"]) == (128, 0)


def test_imported_codes_take_no_new_items(tmp_path: Path) -> None:
    data = shop_dataset()
    save_dataset(data, tmp_path / "data")
    codes = np.stack([np.arange(60) % 8, np.arange(60) // 8], axis=1)
    build_semantic_ids(data, codes, (8, 8)).save(tmp_path / "data" / "semantic_ids", data.item_ids)
    with pytest.raises(WorkspaceError, match="codes that were imported"):
        add_items(tmp_path, table(tmp_path, NEW_TITLES))


def test_damage_and_other_codes_are_noticed(workspace: Path, tmp_path: Path) -> None:
    add_items(workspace, table(tmp_path, NEW_TITLES))
    ids = load_semantic_ids(workspace / "data" / "semantic_ids", shop_dataset().item_ids)
    others = build_semantic_ids(shop_dataset(), ids.codes[::-1], ids.level_sizes)
    with pytest.raises(WorkspaceError, match="extends other codes"):
        load_added_items(workspace, others)
    path = workspace / "added_items" / "items.parquet"
    pl.read_parquet(path).with_columns(title=pl.lit("x")).write_parquet(path)
    with pytest.raises(WorkspaceError, match="wrong fingerprint"):
        load_added_items(workspace, ids)
