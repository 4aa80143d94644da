"""Tomorrow's import of the same log: old items keep their codes, nothing is learned twice, and the model goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tomli_w

from commands import assert_one_sentence, output_of, peso
from peso.data.item_times import load_item_times
from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import load_dataset
from peso.errors import DataError, WorkspaceError
from peso.semantic_ids.added_items import load_added_items
from peso.semantic_ids.catalogue import load_semantic_ids
from peso.training.continuing import continue_run
from streams import SMALL

DAY = 86_400
FIRST = 1_767_225_600  # 2026-01-01


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of three days and of four, the first imported, encoded and learned."""
    folder = tmp_path_factory.mktemp("days")
    dataset = simulate(SimulationSettings(num_users=60, num_items=150, num_blocks=4)).dataset
    random = np.random.default_rng(0)
    days = dataset.event_block + random.random(dataset.num_events)
    times = FIRST + (days[np.lexsort((days, dataset.event_user))] * DAY).astype(int)
    log = pl.DataFrame(
        {
            "user": np.array(dataset.user_ids)[dataset.event_user],
            "item": np.array(dataset.item_ids)[dataset.event_item],
            "time": times,
        }
    ).sort("time")
    log.filter(pl.col("time") < FIRST + 3 * DAY).write_csv(folder / "three.csv")
    log.write_csv(folder / "four.csv")
    pl.DataFrame({"item_id": dataset.item_ids, "title": dataset.titles}).write_csv(folder / "items.csv")
    (folder / "small.toml").write_text(tomli_w.dumps({"method": "peso"} | SMALL))
    imported(folder, "three", folder / "old", "--cut", "2026-01-02", "--cut", "2026-01-03")
    output_of("items", "encode", "--workspace", folder / "old", "--levels", "3", "--codes", "16")
    new = set(dataset.item_ids) - set(load_dataset(folder / "old" / "data").item_ids)
    pl.DataFrame(
        {"item_id": [*sorted(new)[:2], "never taken"], "title": ["Amber 9", "Amber 10", "Amber 11"]}
    ).write_csv(folder / "added.csv")
    output_of("items", "add", folder / "added.csv", "--workspace", folder / "old")
    output_of("run", "--workspace", folder / "old", "--config", folder / "small.toml")
    return folder


def imported(folder: Path, name: str, workspace: Path, *cuts: str) -> None:
    columns = ["--user", "user", "--item", "item", "--time", "time", "--items", str(folder / "items.csv")]
    output_of("import", "table", folder / f"{name}.csv", *columns, *cuts, "--workspace", workspace)


@pytest.fixture
def newer(days: Path, tmp_path: Path) -> Path:
    imported(days, "four", tmp_path / "new", "--like", str(days / "old"))
    return tmp_path / "new"


def codes_of(workspace: Path) -> dict[str, tuple[int, ...]]:
    dataset = load_dataset(workspace / "data")
    ids = load_semantic_ids(workspace / "data" / "semantic_ids", dataset.item_ids)
    added = load_added_items(workspace, ids)
    names = [*dataset.item_ids, *added.ids]
    return dict(zip(names, map(tuple, np.concatenate([ids.codes, added.codes]).tolist()), strict=True))


def test_the_next_day(days: Path, newer: Path) -> None:
    assert load_dataset(newer / "data").num_blocks == 4
    facts = output_of("continue", "--workspace", newer, "--from", days / "old")
    dataset, before = load_dataset(newer / "data"), load_dataset(days / "old" / "data")
    assert dataset.num_blocks == facts["num_blocks"] == 2 and facts["block"] == 2
    assert (dataset.event_block == 0).sum() == before.num_events
    assert len(load_item_times(newer / "data", dataset.item_ids)) == dataset.num_items
    old, new = codes_of(days / "old"), codes_of(newer)
    assert old.items() <= new.items(), "an item that had a code keeps it, added ones among them"
    assert len(set(new.values())) == len(new) and "never taken" in new
    assert facts["num_new_items"] == len(new) - len(old) > 0

    result = output_of("run", "--workspace", newer, "--config", facts["config"])
    (run,) = (days / "old" / "runs").glob("peso-*")
    assert result["base"]["carried_from"]["run_id"] == run.name and result["base"]["carried_from"]["block"] == 2
    assert [block["block"] for block in result["blocks"]] == [1]
    assert len(result["training"]) == 2, "two epochs of the new day, and no base"
    adapter = "adapters/block_0/adapter_model.safetensors"
    weights = newer / "runs" / result["run_id"] / adapter
    assert weights.read_bytes() == (run / "adapters" / "block_2" / "adapter_model.safetensors").read_bytes()

    # And the day after: the cuts are those of the new workspace, whose first days are one block now.
    record = json.loads((newer / "data" / "import.json").read_text())
    assert len(record["block_starts"]) == 2


def test_an_interrupted_call_is_repeated(days: Path, newer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("peso.training.continuing.carry_over", killed)
        continue_run(days / "old", newer)
    codes = codes_of(newer)
    facts = continue_run(days / "old", newer)
    assert codes_of(newer) == codes and Path(facts["base"]).is_dir()


def test_nothing_that_was_learned_comes_up_again(days: Path, tmp_path: Path) -> None:
    imported(days, "four", tmp_path / "new", "--cut", "2026-01-02", "--cut", "2026-01-02T12:00", "--cut", "2026-01-03")
    before = sorted(path.name for path in (tmp_path / "new").rglob("*"))
    with pytest.raises(DataError, match="events in the data that the run has learned, and"):
        continue_run(days / "old", tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").rglob("*")) == before


def test_refusals(days: Path, newer: Path, tmp_path: Path) -> None:
    assert_one_sentence(peso("continue", "-w", days / "old", "--from", days / "old"), "cannot go on from itself")
    same = tmp_path / "same"
    imported(days, "three", same, "--cut", "2026-01-02", "--cut", "2026-01-03")
    assert_one_sentence(peso("continue", "-w", same, "--from", days / "old"), "block 2 is not followed by another one")
    assert_one_sentence(peso("continue", "-w", newer, "--from", same), "holds no finished run")
    (newer / "bases" / "0").mkdir(parents=True)
    (newer / "bases" / "0" / "base.json").touch()
    with pytest.raises(WorkspaceError, match="holds models that speak in this workspace's present codes"):
        continue_run(days / "old", newer)
    shutil.rmtree(newer / "bases")
