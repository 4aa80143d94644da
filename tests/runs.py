"""Whether two runs ended alike."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def assert_same_run(folder: Path, alone: Path) -> None:
    """The same run, equal up to the rounding of sums over processes."""
    assert result_of(folder)["run_id"] == result_of(alone)["run_id"]
    assert_same_numbers(folder, alone)


def assert_same_numbers(folder: Path, alone: Path) -> None:
    """Loss curves, metrics, and what is said of every target."""
    ours, theirs = result_of(folder), result_of(alone)
    for key in ("train_loss", "valid_loss", "gradient_ratio"):
        losses = [[epoch[key] or 0.0 for epoch in result["training"]] for result in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), key
    assert [epoch["selected"] for epoch in ours["training"]] == [epoch["selected"] for epoch in theirs["training"]]
    tables = [pl.read_parquet(one / "targets.parquet").sort("protocol", "event") for one in (folder, alone)]
    keys = ["protocol", "block", "event", "user_id"]
    assert_frame_equal(tables[0].select(keys), tables[1].select(keys))
    assert_frame_equal(tables[0], tables[1], check_exact=False, rel_tol=1e-3)
    assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-3)
