"""Two processes on one run: the numbers of one process, each target once, and a resume after one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from peso.config import dump_config
from peso.training.processes import gather_shares, own_share
from peso.training.stream import run_stream
from streams import config, fill

CHOSEN = config(method="peso", evaluation={"next_block": "ranks"})
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "peso"]


def start(workspace: Path, *flags: str) -> subprocess.Popen[bytes]:
    file = workspace.parent / "config.toml"
    file.write_text(dump_config(CHOSEN))
    command = [*TORCHRUN, "run", "--workspace", str(workspace), "--config", str(file), *flags]
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


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_stream(fill(tmp_path_factory.mktemp("alone") / "world"), CHOSEN)


def assert_same(folder: Path, alone: Path) -> None:
    ours, theirs = result_of(folder), result_of(alone)
    assert ours["run_id"] == theirs["run_id"]
    for key in ("train_loss", "valid_loss", "gradient_ratio"):
        losses = [[epoch[key] or 0.0 for epoch in result["training"]] for result in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), key
    assert [epoch["selected"] for epoch in ours["training"]] == [epoch["selected"] for epoch in theirs["training"]]
    tables = [pl.read_parquet(one / "targets.parquet").sort("protocol", "event") for one in (folder, alone)]
    keys = ["protocol", "block", "event", "user_id"]
    assert_frame_equal(tables[0].select(keys), tables[1].select(keys))
    assert_frame_equal(tables[0], tables[1], check_exact=False, rel_tol=1e-3)
    assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-3)


def test_two_processes_end_with_the_numbers_of_one(tmp_path: Path, alone: Path) -> None:
    workspace = fill(tmp_path / "world")
    process = start(workspace)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    folder = workspace / "runs" / alone.name
    assert output.decode().splitlines()[-1] == str(folder / "result.json"), "one process speaks, the other is silent"
    assert_same(folder, alone)
    assert not [path for path in workspace.rglob("*") if path.name.startswith(".tmp-")]


def test_a_run_resumes_after_one_process_is_killed(tmp_path: Path, alone: Path) -> None:
    workspace = fill(tmp_path / "world")
    process = start(workspace)
    deadline = time.monotonic() + 200
    while not list(workspace.glob("runs/*/checkpoint_block_1.safetensors")):
        assert process.poll() is None, "the run ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    process.communicate(timeout=200)
    assert process.returncode != 0
    assert not list(workspace.glob("runs/*/result.json"))
    process = start(workspace, "--resume")
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert_same(workspace / "runs" / alone.name, alone)


def test_one_process_has_the_whole_share() -> None:
    entries = np.arange(5)
    assert own_share(entries).tolist() == [0, 1, 2, 3, 4]
    (gathered,) = gather_shares(5, entries)
    assert gathered is entries
