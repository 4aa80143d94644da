"""A memory of like content in a whole run: it is chosen, recorded, and names items that nobody has taken."""

from pathlib import Path

import polars as pl
import pytest

from catalogues import shop_dataset
from peso.data.storage import save_dataset
from peso.files import read_json
from peso.memory.choice import CONTENT_WEIGHTS
from peso.semantic_ids.adding import add_items
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.training.recommending import recommend_for_user
from peso.training.stream import run_stream
from streams import config, fill

RUN = {"method": "single", "training": {"epochs": 1}, "evaluation": {"next_block": "off"}}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    save_dataset(shop_dataset(), folder / "data")
    encode_workspace(folder, EncodingRequest("tfidf", "rq-kmeans", (8, 8, 8)))
    return folder


def test_the_weight_is_chosen_and_recorded(shop: Path) -> None:
    with_content = read_json(run_stream(shop, config(**RUN)) / "result.json", "result")
    without = read_json(run_stream(shop, config(**RUN, memory={"content_weight": 0})) / "result.json", "result")
    (block,), (plain,) = with_content["blocks"], without["blocks"]
    assert block["memory"]["content_weight"] in CONTENT_WEIGHTS[1:]
    assert block["log_likelihood"] != plain["log_likelihood"]
    assert plain["memory"]["content_weight"] == 0


def test_an_item_added_today_is_recommended_for_its_content(shop: Path, tmp_path: Path) -> None:
    run = run_stream(shop, config(**RUN, memory={"content_weight": 30.0}))
    user = "user 0"
    last = recommend_for_user(shop, user, 5, run.name)["history"][-1]["title"]
    pl.DataFrame({"item_id": ["today"], "title": [last.split(" no ")[0]]}).write_csv(tmp_path / "today.csv")
    before = [item["item_id"] for item in recommend_for_user(shop, user, 5, run.name)["recommendations"]]
    add_items(shop, tmp_path / "today.csv")
    after = [item["item_id"] for item in recommend_for_user(shop, user, 5, run.name)["recommendations"]]
    assert "today" in after
    assert [item for item in after if item != "today"] == before[:4]


def test_imported_codes_have_no_content(tmp_path: Path) -> None:
    result = read_json(run_stream(fill(tmp_path), config(**RUN)) / "result.json", "result")
    assert all(block["memory"]["content_weight"] == 0 for block in result["blocks"])
    assert all(len(block["memory"]["strengths"]) == 3 for block in result["blocks"])
