"""More items than codes: tomorrow's items are added, named in lists, taken, and learned by a model that goes on."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from commands import output_of
from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import load_dataset, save_dataset
from peso.semantic_ids.adding import add_items
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.semantic_ids.refreshing import refresh_workspace
from peso.training.carrying import carry_over, find_version
from peso.training.stream import run_stream
from peso.training.user_lists import load_user_lists
from streams import config

SIZES = (6, 5, 5)
"""Codes for 150 items, and not for one more."""


@pytest.fixture(scope="module")
def full_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which every code is taken, with a run; the table of new items lies beside it."""
    folder = tmp_path_factory.mktemp("full")
    dataset = simulate(SimulationSettings(num_users=60, num_items=150, num_blocks=3)).dataset
    assert dataset.num_items == np.prod(SIZES)
    save_dataset(dataset, folder / "shop" / "data")
    encode_workspace(folder / "shop", EncodingRequest("tfidf", "rq-kmeans", SIZES))
    titles = [f"{dataset.titles[n * 7].rsplit(' ', 1)[0]} {90 + n}" for n in range(12)]
    pl.DataFrame({"item_id": [f"new {n}" for n in range(12)], "title": titles}).write_csv(folder / "new.csv")
    return folder


@pytest.mark.parametrize("method", ["peso", "full", "sum_lora"])
def test_added_items_are_named(method: str, full_shop: Path, tmp_path: Path) -> None:
    shop = full_shop / "shop"
    run = run_stream(shop, config(method=method, decoding={"beam_width": 200}), resume=True)
    if not (shop / "added_items").exists():
        assert add_items(shop, full_shop / "new.csv")["num_new_codes"] > 0
    lists = load_user_lists(shop, 162, run.name)
    users = np.arange(8)
    items, scores = lists.recommend(users)
    for listed, score in zip(items, scores, strict=True):
        named = listed[listed >= 0]
        assert len(np.unique(named)) == len(named)
        assert set(range(150, 162)) <= set(named.tolist()), "a list of everything holds the new items"
        # Codes of a level share one softmax, so that all items together have no more than all of it.
        assert np.exp(score[np.isfinite(score)].astype(np.float64)).sum() <= 1 + 1e-5
    output = output_of("recommend", "--workspace", shop, "--user", lists.dataset.user_ids[0], "--run", run.name)
    assert len(output["recommendations"]) == 10


def test_a_refresh_and_its_model_keep_the_new_codes(full_shop: Path, tmp_path: Path) -> None:
    shop = full_shop / "shop"
    chosen = config(method="peso", memory={"use": False})
    run = run_stream(shop, chosen, resume=True)
    if not (shop / "added_items").exists():
        add_items(shop, full_shop / "new.csv")
    refresh_workspace(shop, tmp_path / "new", 1, 0.2)
    folder = carry_over(find_version(shop, run.name, 1), tmp_path / "new")
    sizes = json.loads((tmp_path / "new" / "data" / "semantic_ids" / "semantic_ids.json").read_text())["level_sizes"]
    assert sizes[:2] == [6, 5] and sizes[2] > 5
    again = run_stream(tmp_path / "new", chosen)
    result = json.loads((again / "result.json").read_text())
    assert result["base"]["id"] == folder.name and result["invalid_items"] == 0 and result["training"]
    lists = load_user_lists(tmp_path / "new", 10)
    assert len(lists.added.ids) == 12 and (lists.recommend(np.arange(4))[0] >= 0).all()


def test_the_next_day_brings_more_items_than_codes(tmp_path: Path) -> None:
    """A log of two days and of three, through the commands; nobody added anything by hand."""
    dataset = simulate(SimulationSettings(num_users=60, num_items=150, num_blocks=3)).dataset
    log = pl.DataFrame(
        {
            "user": np.array(dataset.user_ids)[dataset.event_user],
            "item": np.array(dataset.item_ids)[dataset.event_item],
            "time": 1_767_225_600 + 86_400 * dataset.event_block + np.arange(dataset.num_events) % 80_000,
        }
    )
    items = tmp_path / "items.csv"
    pl.DataFrame({"item_id": dataset.item_ids, "title": dataset.titles}).write_csv(items)
    columns = ["--user", "user", "--item", "item", "--time", "time", "--items", str(items)]
    log.filter(pl.col("time") < 1_767_225_600 + 2 * 86_400).write_csv(tmp_path / "two.csv")
    log.write_csv(tmp_path / "three.csv")
    old, new = tmp_path / "old", tmp_path / "new"
    output_of("import", "table", tmp_path / "two.csv", *columns, "--cut", "2026-01-02", "--workspace", old)
    before = load_dataset(old / "data").num_items
    codes = -(-before // 16)
    encode_workspace(old, EncodingRequest("tfidf", "rq-kmeans", (4, 4, codes)))
    run = run_stream(old, config(method="peso"))
    output_of("import", "table", tmp_path / "three.csv", *columns, "--like", str(old), "--workspace", new)
    num_new = load_dataset(new / "data").num_items - before
    assert before + num_new > 16 * codes, "the world's third day has enough new items for this test"
    facts = output_of("continue", "--workspace", new, "--from", old)
    assert facts["num_new_items"] == num_new
    result = output_of("run", "--workspace", new, "--config", facts["config"])
    assert result["base"]["carried_from"]["run_id"] == run.name
    assert result["training"] and result["invalid_items"] == result["duplicate_items"] == 0
    report = output_of("items", "drift", "--workspace", new)
    assert report
