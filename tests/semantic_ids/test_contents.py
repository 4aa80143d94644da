"""What is read of items: titles alone, or texts and categories where a workspace has them."""

from pathlib import Path

import polars as pl
import pytest

from catalogues import shop_dataset
from peso.data.storage import save_dataset
from peso.errors import DataError, WorkspaceError
from peso.semantic_ids.contents import full_text, read_workspace_items, telling_categories
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.semantic_ids.judging import judge_workspace


def write_texts(folder: Path, ids: list[str]) -> None:
    texts = [f"hardware number {n}" if n % 2 else "" for n in range(60)]
    categories = [["Shop", f"kind {n % 5}"] if n else [] for n in range(60)]
    frame = pl.DataFrame({"item_id": ids, "text": texts, "categories": categories})
    frame.write_parquet(folder / "item_texts.parquet")


def test_titles_alone(tmp_path: Path) -> None:
    read = read_workspace_items(tmp_path, shop_dataset())
    assert read.contents.texts == shop_dataset().titles
    assert read.categories is None


def test_texts_and_categories(tmp_path: Path) -> None:
    data = shop_dataset()
    save_dataset(data, tmp_path / "data")
    write_texts(tmp_path / "data", list(data.item_ids))
    read = read_workspace_items(tmp_path / "data", data)
    assert read.contents.texts[0] == data.titles[0]
    assert read.contents.texts[1] == f"{data.titles[1]}\nhardware number 1"
    assert read.categories is not None
    assert read.categories[:3] == ["", "kind 1", "kind 2"]
    encode_workspace(tmp_path, EncodingRequest("tfidf", "rq-kmeans", (8, 4, 4)))
    levels = judge_workspace(tmp_path).levels
    assert all(level.purity is not None and level.purity_by_chance is not None for level in levels)
    assert levels[0].purity is not None and levels[0].purity > (levels[0].purity_by_chance or 0) + 0.1


def test_texts_of_other_items_and_damage(tmp_path: Path) -> None:
    write_texts(tmp_path, list(shop_dataset().item_ids)[::-1])
    with pytest.raises(DataError, match="of other items than the data set's"):
        read_workspace_items(tmp_path, shop_dataset())
    pl.DataFrame({"item_id": ["x"]}).write_parquet(tmp_path / "item_texts.parquet")
    with pytest.raises(WorkspaceError, match="is damaged"):
        read_workspace_items(tmp_path, shop_dataset())


def test_the_title_is_not_read_twice() -> None:
    assert full_text("Bolt", "Bolt, of steel") == "Bolt, of steel"
    assert full_text("Bolt", "of steel") == "Bolt\nof steel"
    assert full_text("", " steel ") == "steel"
    assert full_text("Bolt", "") == "Bolt"


def test_categories_start_to_tell_where_items_differ() -> None:
    assert telling_categories([["a", "b"], ["a", "c", "d"], ["a"], []]) == ["b", "c", "", ""]
    assert telling_categories([["a"], ["a"]]) is None
    assert telling_categories([]) is None
