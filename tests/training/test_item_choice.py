"""Lists that name only what an operator allows: an allow-list, what is out of stock, places for new items too."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from commands import assert_one_sentence, output_of, peso
from peso.data.item_choice import EVERYTHING, ItemChoice
from peso.data.storage import load_dataset
from peso.training.recommending import recommend_for_user
from peso.training.stream import run_stream
from streams import config, fill

USER = "u00007"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill(tmp_path_factory.mktemp("choice") / "world")
    run_stream(folder, config(method="single"))
    return folder


def listed(workspace: Path, choice: ItemChoice = EVERYTHING, share: float = 0.0) -> list[str]:
    answer = recommend_for_user(workspace, USER, 10, decoding={"new_item_share": share}, choice=choice)
    return [item["item_id"] for item in answer["recommendations"]]


def table(folder: Path, *items: str) -> Path:
    file = folder / "items.csv"
    file.write_text("\n".join(["item_id", *items]) + "\n")
    return file


def test_what_is_out_of_stock_gives_way_to_the_next_best(workspace: Path) -> None:
    before = listed(workspace)
    after = listed(workspace, ItemChoice(without=frozenset(before[:3])))
    assert len(after) == 10 and not set(after) & set(before[:3])
    assert len(set(after) & set(before[3:])) >= 6, "the others stay, but for what the memory held behind their prefixes"


def test_an_allow_list_is_all_that_is_named(workspace: Path) -> None:
    dataset = load_dataset(workspace / "data")
    known = np.unique(dataset.event_item)
    some = frozenset(dataset.item_ids[item] for item in known[::5].tolist())
    after = listed(workspace, ItemChoice(only=some, without=frozenset(dataset.item_ids[:20])))
    assert len(after) == 10 and set(after) <= some - set(dataset.item_ids[:20])
    taken = {item["item_id"] for item in recommend_for_user(workspace, USER, 10)["history"]}
    few = sorted(some - taken)[:4]
    assert sorted(listed(workspace, ItemChoice(only=frozenset(few)))) == few, "a short list where few are allowed"


def test_places_for_new_items_obey(workspace: Path) -> None:
    dataset = load_dataset(workspace / "data")
    is_new = dataset.item_first_block == dataset.num_blocks - 1
    new = {dataset.item_ids[item] for item in np.flatnonzero(is_new).tolist()}
    named = set(listed(workspace, share=0.3)) & new
    assert len(named) >= 3
    rest = new - named
    assert not set(listed(workspace, ItemChoice(without=frozenset(named)), share=0.3)) & named
    assert len(set(listed(workspace, ItemChoice(without=frozenset(named)), share=0.3)) & rest) >= min(3, len(rest))
    without_new = listed(workspace, ItemChoice(without=frozenset(new)), share=0.3)
    assert len(without_new) == 10 and not set(without_new) & new


def test_tables_of_all_users_obey_and_say_so(workspace: Path, tmp_path: Path) -> None:
    allowed = load_dataset(workspace / "data").item_ids[::3]
    file = table(tmp_path, *allowed, "sold elsewhere")
    output = Path(output_of("recommend", "--all", "-w", workspace, "--only", file, "-o", tmp_path / "lists")["output"])
    named = pl.read_parquet(output / "*.parquet")["item_id"]
    assert set(named) <= set(allowed) and "items" in (output / "facts.json").read_text()
    one = output_of("recommend", "-u", USER, "-w", workspace, "--only", file)["recommendations"]
    mine = pl.read_parquet(output / "*.parquet").filter(pl.col("user_id") == USER)["item_id"].to_list()
    assert [item["item_id"] for item in one] == mine


def test_wrong_tables_are_one_sentence(workspace: Path, tmp_path: Path) -> None:
    call: list[str | Path] = ["recommend", "-w", workspace, "--user", USER]
    assert_one_sentence(peso(*call, "--only", table(tmp_path, "none of ours")), "check their ids")
    everything = load_dataset(workspace / "data").item_ids
    assert_one_sentence(peso(*call, "--without", table(tmp_path, *everything)), "check their ids")
    assert_one_sentence(peso(*call, "--without", table(tmp_path)), "holds no items")
    assert_one_sentence(peso(*call, "--only", table(tmp_path, "a", "", "b")), "row 2 has no 'item_id'")
    assert_one_sentence(peso(*call, "--only", tmp_path / "missing.csv"), "cannot be read as csv")
    other = tmp_path / "other.csv"
    other.write_text("item\na\n")
    assert_one_sentence(peso(*call, "--without", other), "but no 'item_id'")
