"""The report on a workspace's codes: figures, words and titles that are there, and a picture that parses."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from catalogues import shop_dataset, shop_titles
from peso.data.dataset import Dataset
from peso.data.storage import save_dataset
from peso.errors import DataError, WorkspaceError
from peso.experiments.code_tree import code_tree
from peso.experiments.items_report import write_items_report
from peso.semantic_ids.catalogue import build_semantic_ids
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.semantic_ids.group_words import GroupWords
from peso.semantic_ids.judging import judge_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    save_dataset(shop_dataset(), tmp_path / "data")
    return tmp_path


def test_the_page(workspace: Path) -> None:
    encode_workspace(workspace, EncodingRequest("tfidf", "rq-kmeans", (8, 4, 4)))
    facts = write_items_report(workspace)
    page = Path(facts["report"]).read_text()
    assert facts["space"] == "tfidf"
    assert [level["level"] for level in facts["levels"]] == [1, 2, 3]
    assert "learned from 45 of 60 items" in page
    assert f"<td>{facts['levels'][1]['num_prefixes']}</td>" in page
    assert "safety glove heavy duty" in page
    assert facts["levels"][0]["neighbours_sharing"] > 2 * facts["levels"][0]["neighbours_by_chance"]
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_titles_are_escaped(tmp_path: Path) -> None:
    data = shop_dataset()
    titles = [f"<script>{title}</script>" for title in data.titles]
    shop = Dataset(data.user_ids, data.item_ids, titles, data.event_user, data.event_item, data.event_block, 2)
    save_dataset(shop, tmp_path / "data")
    encode_workspace(tmp_path, EncodingRequest("tfidf", "rq-kmeans", (8, 4, 4)))
    assert "<script>" not in Path(write_items_report(tmp_path)["report"]).read_text()


def test_imported_codes_are_judged_by_texts_or_by_users(tmp_path: Path) -> None:
    codes = np.stack([np.arange(60) % 5, np.arange(60) // 5], axis=1)
    for name, titles, space in (("a", shop_titles(60), "tfidf"), ("b", [""] * 60, "collaborative")):
        data = shop_dataset()
        shop = Dataset(data.user_ids, data.item_ids, titles, data.event_user, data.event_item, data.event_block, 2)
        save_dataset(shop, tmp_path / name / "data")
        build_semantic_ids(shop, codes, (5, 12)).save(tmp_path / name / "data" / "semantic_ids", shop.item_ids)
        judgement = judge_workspace(tmp_path / name)
        assert (judgement.record, judgement.space) == (None, space)
        # The first code is the kind itself.
        assert judgement.levels[0].neighbours_sharing > 0.5
        assert judgement.levels[0].codebook_error is None
    assert [group.code for group in judgement.groups] == [0, 1, 2, 3, 4]


def test_nothing_to_judge(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="run `peso items encode` first"):
        judge_workspace(workspace)
    single = Dataset(["u"], ["p"], ["x"], np.array([0]), np.array([0]), np.array([0]), 1)
    save_dataset(single, tmp_path / "one" / "data")
    build_semantic_ids(single, np.array([[0]]), (2,)).save(tmp_path / "one" / "data" / "semantic_ids", ["p"])
    with pytest.raises(DataError, match="has one item"):
        judge_workspace(tmp_path / "one")


def test_words_that_set_a_group_apart() -> None:
    words = GroupWords(["red steel bolt", "blue steel bolt", "red nylon rope", "blue nylon rope", "red nylon net"])
    # "bolt" and "steel" are in every title of the group and in two of five; "red" is no commoner than elsewhere.
    assert words.name([0, 1], 3) == ["bolt", "steel", "blue"]
    assert words.name([2, 3, 4], 1) == ["nylon"]
    assert words.name([0, 1, 2, 3, 4], 5) == []


def test_the_tree_names_wide_nodes_and_is_the_same_every_time() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 2], [1, 0]])
    picture = code_tree(codes, {0: "ropes", 1: "nets"})
    assert "ropes" in picture and "nets" in picture
    assert picture == code_tree(codes, {0: "ropes", 1: "nets"})
    assert picture != code_tree(codes[::-1] % 2, {0: "ropes", 1: "nets"})
