"""Runs of two processes, and whether they end with the numbers of one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from peso.config import RunConfig, dump_config

_TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "peso"]


def start(workspace: Path, config: RunConfig, *flags: str) -> subprocess.Popen[bytes]:
    """`torchrun -m peso run` in the background, in a process group of its own."""
    file = workspace.parent / "config.toml"
    file.write_text(dump_config(config))
    command = [*_TORCHRUN, "run", "--workspace", str(workspace), "--config", str(file), *flags]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


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
