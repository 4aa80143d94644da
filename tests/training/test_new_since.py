"""Places for items newer than a date: in a run's lists, by an operator's word, and in what goes on from the run."""

import datetime as dt
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tomli_w

from commands import assert_one_sentence, output_of, peso
from peso.config import RunConfig, make_config
from peso.config.instants import microseconds, read_instant
from peso.data.item_times import TIMES_FILE
from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import load_dataset
from peso.errors import PesoError
from peso.studies.plan import UserSplit
from peso.studies.worlds import prepare_world
from peso.training.materials import load_materials
from peso.training.measure import reserved_for_new
from peso.training.stream import run_stream
from streams import SMALL

SINCE = "2024-01-03T12:00"
"""In the middle of the third day."""
DATED = ("--new-item-share", "0.2", "--new-since", SINCE)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three days with times; the folder holds the workspace `shop` with a run, and one item added."""
    folder = tmp_path_factory.mktemp("since")
    dataset = simulate(SimulationSettings(num_users=60, num_items=150, num_blocks=3)).dataset
    days = dataset.event_block + np.random.default_rng(0).random(dataset.num_events)
    times = 1_704_067_200 + (days[np.lexsort((days, dataset.event_user))] * 86_400).astype(int)
    users, items = (
        np.array(ids)[places]
        for ids, places in ((dataset.user_ids, dataset.event_user), (dataset.item_ids, dataset.event_item))
    )
    pl.DataFrame({"user": users, "item": items, "time": times}).write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": dataset.item_ids, "title": dataset.titles}).write_csv(folder / "items.csv")
    pl.DataFrame({"item_id": ["brand new"], "title": ["Amber 9"]}).write_csv(folder / "new.csv")
    (folder / "small.toml").write_text(tomli_w.dumps({"method": "single"} | SMALL))
    columns = ["--user", "user", "--item", "item", "--time", "time", "--items", str(folder / "items.csv")]
    cuts = ["--cut", "2024-01-02", "--cut", "2024-01-03"]
    output_of("import", "table", folder / "log.csv", *columns, *cuts, "--workspace", folder / "shop")
    output_of("items", "encode", "--workspace", folder / "shop", "--levels", "3", "--codes", "8")
    output_of("items", "add", folder / "new.csv", "--workspace", folder / "shop")
    output_of("run", "--workspace", folder / "shop", "--config", folder / "small.toml", "--no-memory")
    return folder


def newer_items(workspace: Path) -> set[str]:
    frame = pl.read_parquet(workspace / "data" / TIMES_FILE)
    since = pl.lit(read_instant(SINCE)).cast(pl.Datetime("us", "UTC"))
    return set(frame.filter(pl.col("first_time") >= since)["item_id"])


def test_an_operator_keeps_places(shop: Path) -> None:
    workspace = shop / "shop"
    newer = newer_items(workspace) | {"brand new"}
    latest = load_dataset(workspace / "data").item_first_block == 2
    assert 4 < len(newer) < latest.sum(), "fewer than of the whole last day"
    user = load_dataset(workspace / "data").user_ids[0]
    places = ["--new-item-share", "0.4", "--new-since", SINCE]
    kept = output_of("recommend", "-w", workspace, "-u", user, *places)["recommendations"]
    plain = output_of("recommend", "-w", workspace, "-u", user)["recommendations"]
    named, by_scores = ({item["item_id"] for item in answer} for answer in (kept, plain))
    assert len(named) == len(by_scores) == 10 and len(named & newer) >= 4 > len(by_scores & newer)
    scores = [item["score"] for item in kept]
    assert scores == sorted(scores, reverse=True)

    tables = output_of("recommend", "--all", "-w", workspace, *places, "-o", shop / "lists")
    lists = pl.read_parquet(Path(tables["output"]) / "*.parquet")
    counts = lists.group_by("user_id").agg(pl.col("item_id").is_in(list(newer)).sum())
    assert counts["item_id"].min() >= 4  # type: ignore[operator]
    assert lists.filter(pl.col("user_id") == user)["item_id"].to_list() == [item["item_id"] for item in kept]


def test_a_run_keeps_places_of_its_own(shop: Path) -> None:
    workspace = shop / "shop"
    chosen = make_config(shop / "small.toml", {"decoding": {"new_item_share": 0.4, "new_since": SINCE}})
    materials = load_materials(workspace, chosen)
    ids, everything = materials.dataset.item_ids, np.arange(materials.dataset.num_items)
    reserved = reserved_for_new(materials, everything, 2)
    assert reserved is not None
    assert {ids[item] for item in reserved.trie.leaf_items.tolist()} == newer_items(workspace)
    # The very instant counts, a microsecond later does not.
    last = int(materials.item_times.max())
    exact = read_instant("1970-01-01") + dt.timedelta(microseconds=last)
    assert microseconds(exact) == last
    of_last = reserved_for_new(load_materials(workspace, with_since(shop, exact.isoformat())), everything, 2)
    assert of_last is not None and (materials.item_times[of_last.trie.leaf_items] == last).all()
    later = (exact + dt.timedelta(microseconds=1)).isoformat()
    assert reserved_for_new(load_materials(workspace, with_since(shop, later)), everything, 2) is None
    # What is taken in the third block only is new to a model of the second, whatever the date says.
    to_come = reserved_for_new(load_materials(workspace, with_since(shop, later)), everything, 1)
    assert to_come is not None
    assert sorted(to_come.trie.leaf_items) == np.flatnonzero(materials.dataset.item_first_block == 2).tolist()
    (shop / "dated.toml").write_text(
        tomli_w.dumps({"method": "single"} | SMALL | {"decoding": chosen.decoding.model_dump(mode="json")})
    )
    result = output_of("run", "-w", workspace, "--config", shop / "dated.toml", "--no-memory")
    assert result["invalid_items"] == result["duplicate_items"] == 0
    user = materials.dataset.user_ids[0]
    kept = output_of("recommend", "-w", workspace, "-u", user, "--run", result["run_id"])["recommendations"]
    newer = newer_items(workspace) | {"brand new"}
    assert sum(item["item_id"] in newer for item in kept) >= 4
    off = ["--new-item-share", "0"]
    plain = output_of("recommend", "-w", workspace, "-u", user, "--run", result["run_id"], *off)["recommendations"]
    assert sum(item["item_id"] in newer for item in plain) < 4, "no share, no places, and no word about the date"


def with_since(shop: Path, text: str) -> RunConfig:
    return make_config(shop / "small.toml", {"decoding": {"new_item_share": 0.4, "new_since": text}})


def test_times_go_on_with_the_data(shop: Path, tmp_path: Path) -> None:
    table = (shop / "shop" / "data" / TIMES_FILE).read_bytes()
    output_of("items", "refresh", "-w", shop / "shop", "--into", tmp_path / "refreshed")
    assert (tmp_path / "refreshed" / "data" / TIMES_FILE).read_bytes() == table
    world = prepare_world(shop / "shop", "split", UserSplit())
    assert (world / "data" / TIMES_FILE).read_bytes() == table


def test_what_is_refused(shop: Path, tmp_path: Path) -> None:
    workspace = shop / "shop"
    user = load_dataset(workspace / "data").user_ids[0]
    undated = output_of("run", "-w", workspace, "--config", shop / "small.toml", "--no-memory", "--resume")["run_id"]
    ask = ("recommend", "-w", workspace, "-u", user, "--run", undated)
    assert_one_sentence(peso(*ask, "--new-since", SINCE), "decoding.new_item_share 0 keeps nothing")
    assert_one_sentence(peso(*ask, "--new-item-share", "0.2", "--new-since", "soon"), "'soon' is no date")
    assert_one_sentence(peso(*ask, "--new-item-share", "2"), "decoding.new_item_share")
    everyone = ("recommend", "--all", "-w", workspace, "-o", tmp_path / "lists")
    assert_one_sentence(peso(*everyone, "--new-item-share", "2"), "decoding.new_item_share")
    times = workspace / "data" / TIMES_FILE
    moved = times.rename(tmp_path / TIMES_FILE)
    try:
        refused = peso(*ask, "--new-item-share", "0.2", "--new-since", SINCE)
        assert_one_sentence(refused, "asks when items were first taken", "import a log that has them")
        with_ray = [("scale", "recommend")] if importlib.util.find_spec("ray") else []
        for for_all in [("recommend", "--all"), *with_ray]:
            refused = peso(*for_all, "-w", workspace, "-o", tmp_path / "lists", *DATED)
            assert_one_sentence(refused, "asks when items were first taken")
        times.write_bytes(b"no table")
        assert_one_sentence(peso(*everyone, *DATED), "item_times.parquet cannot be read", "import the data again")
        assert not list(tmp_path.glob("*lists*")), "nothing is left behind"
    finally:
        moved.rename(times)


@pytest.mark.parametrize("damage", ["no table", "of other items", "none"])
def test_nothing_is_trained_on_times_that_cannot_be_used(shop: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(shop / "shop" / "data", tmp_path / "data")
    times = tmp_path / "data" / TIMES_FILE
    frame = pl.read_parquet(times)
    times.unlink()
    if damage == "no table":
        times.write_bytes(b"no table")
    elif damage == "of other items":
        frame.reverse().write_parquet(times)
    said = {"no table": "cannot be read", "of other items": "are of other items", "none": "holds no such times"}[damage]
    dated = make_config(shop / "small.toml", {"decoding": {"new_item_share": 0.2, "new_since": SINCE}})
    with pytest.raises(PesoError, match=said):
        run_stream(tmp_path, dated)
    assert not list(tmp_path.glob("bases/*/*"))
