"""Blocks in which no user has the three events that validation and test targets take."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from peso.baselines.run import run_baselines
from peso.cli.running import print_result
from peso.data.dataset import Dataset
from peso.data.list_rules import ListRules
from peso.errors import DataError
from peso.evaluation.tables import list_rows, target_rows
from peso.experiments.plots import loss_curves
from peso.experiments.report import write_report
from peso.experiments.results import group_variants, list_runs, load_results
from peso.files import read_json
from peso.studies.activity import measure_activity
from peso.studies.registry import run_study
from peso.training.recommending import recommend_for_user
from peso.training.stream import run_stream
from streams import SMALL, config
from worlds import fill_workspace, tiny_dataset


def shortened(short: Sequence[int], num_blocks: int = 3) -> Dataset:
    """A small data set in which every user keeps at most two events of some blocks."""
    whole = tiny_dataset(num_blocks=num_blocks)
    keys = whole.event_user * num_blocks + whole.event_block
    place = np.arange(whole.num_events) - np.searchsorted(keys, keys)
    kept = ~np.isin(whole.event_block, short) | (place < 2)
    return replace(
        whole,
        event_user=whole.event_user[kept],
        event_item=whole.event_item[kept],
        event_block=whole.event_block[kept],
    )


def run(workspace: Path, **overrides: Any) -> dict[str, Any]:
    """A run's result; whatever is JSON in the workspace is JSON of the standard."""
    folder = run_stream(workspace, config(**overrides))
    for path in workspace.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
    result: dict[str, Any] = read_json(folder / "result.json", "result")
    return result


def epochs_of(result: dict[str, Any], block: int) -> list[tuple[Any, bool]]:
    return [(one["valid_loss"], one["selected"]) for one in result["training"] if one["block"] == block]


def test_a_short_block_in_the_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = fill_workspace(tmp_path, shortened([1]))
    with caplog.at_level(logging.INFO, "peso"):
        result = run(tmp_path)
    assert [line for line in caplog.messages if line.startswith("block_1: no validation targets")] == [
        "block_1: no validation targets (no user has three events); the last epoch is kept"
    ]
    assert not any(line.startswith("block_2: no validation") for line in caplog.messages)
    assert epochs_of(result, 1) == [(None, False), (None, True)]
    short, whole = result["blocks"]
    assert (short["num_targets"], short["ndcg@10"], short["log_likelihood"]) == (0, None, None)
    assert short["groups"]["returning"]["num_targets"] == 0
    assert result["mean"]["ndcg@10"] == whole["ndcg@10"] > 0
    assert result["next_block"][0]["num_targets"] == np.count_nonzero(dataset.event_block == 1)
    run_baselines(dataset, tmp_path, ListRules.choose(dataset, "known", "auto"))
    assert write_report(tmp_path).stat().st_size > 10_000
    assert list_runs(tmp_path)["ndcg@10"].null_count() == 0


def test_a_short_base(tmp_path: Path) -> None:
    fill_workspace(tmp_path, shortened([0]))
    result = run(tmp_path)
    assert epochs_of(result, 0)[:2] == [(None, False), (None, True)]
    assert all(block["num_targets"] for block in result["blocks"])
    assert run(tmp_path, method="frozen")["base"]["reused"]


def test_nothing_but_short_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = fill_workspace(tmp_path, shortened([0, 1, 2]))
    result = run(tmp_path)
    assert set(result["mean"].values()) == {None}
    assert result["mean_next_block"]["log_likelihood"] < 0
    print_result(tmp_path / "runs" / result["run_id"], json=False)
    assert "mean NDCG@10 over later blocks: none, as no later block has a user with three" in capsys.readouterr().out
    run_baselines(dataset, tmp_path, ListRules.choose(dataset, "known", "auto"))
    assert "No later block has a user with three events" in write_report(tmp_path).read_text()
    assert "nan" not in loss_curves(group_variants(load_results(tmp_path)))
    assert len(recommend_for_user(tmp_path, dataset.user_ids[0], 3, None)["recommendations"]) == 3


def test_a_strength_that_nothing_can_choose_is_the_default(tmp_path: Path) -> None:
    fill_workspace(tmp_path, shortened([1]))
    chosen, fixed = (run(tmp_path, proximal={"strength": strength}) for strength in ("auto", 3.0))
    assert {trial["block"] for trial in chosen["strengths"]} == {2}
    losses = [[one["train_loss"] for one in result["training"] if one["block"] == 1] for result in (chosen, fixed)]
    assert losses[0] == losses[1]


def test_a_run_that_older_versions_left_with_nan_goes_on(tmp_path: Path) -> None:
    fill_workspace(tmp_path, shortened([1]))
    before = run(tmp_path)
    folder = tmp_path / "runs" / before["run_id"]
    (folder / "result.json").unlink()
    record = folder / "adapters" / "block_1" / "update.json"
    record.write_text(record.read_text().replace('"valid_loss": null', '"valid_loss": NaN'))
    assert "NaN" in record.read_text()
    after = read_json(run_stream(tmp_path, config(), resume=True) / "result.json", "result")
    assert after["mean"] == before["mean"]
    assert epochs_of(after, 1) == epochs_of(before, 1)


def test_studies_say_what_they_lack(tmp_path: Path) -> None:
    fill_workspace(tmp_path / "none", shortened([1, 2]))
    fill_workspace(tmp_path / "some", shortened([1]))
    with pytest.raises(DataError, match="study gap needs test targets, and no later block has a user with three"):
        run_study("gap", tmp_path / "none", 1, tmp_path / "results")
    with pytest.raises(DataError, match="study matrix needs validation and test targets in block 1"):
        run_study("matrix", tmp_path / "some", 1, tmp_path / "results")
    with pytest.raises(DataError, match="anchors needs validation and test targets in block 1"):
        measure_activity(tmp_path / "some", None, [(16, 2)])
    assert not (tmp_path / "results").exists()


def test_a_study_over_a_short_block(tmp_path: Path) -> None:
    fill_workspace(tmp_path, shortened([1]))
    (tmp_path / "small.toml").write_text(
        "\n".join(
            f"[{section}]\n" + "\n".join(f"{key} = {value}" for key, value in values.items())
            for section, values in SMALL.items()
        )
    )
    record = run_study("gap", tmp_path, 1, tmp_path / "results", tmp_path / "small.toml")
    assert all(arm["mean"]["valid_loss"] > 0 for arm in record["arms"])


def test_tables_without_rows_have_the_types_of_those_with(tmp_path: Path) -> None:
    dataset = tiny_dataset()

    def tables(events: np.ndarray) -> tuple[pl.DataFrame, pl.DataFrame]:
        rows = target_rows(
            dataset, events, protocol="in_block", model_block=1, ranks=np.ones(len(events), dtype=np.int64),
            log_likelihoods=np.zeros(len(events)), seen_items_mask=np.ones(dataset.num_items, dtype=bool),
        )  # fmt: skip
        lists = np.zeros((len(events), 2), dtype=np.int64)
        return rows, list_rows(dataset, 1, events, lists, np.zeros(lists.shape, dtype=np.float32))

    for empty, filled in zip(tables(np.arange(0)), tables(np.arange(3)), strict=True):
        assert empty.schema == filled.schema
        assert len(empty) == 0
