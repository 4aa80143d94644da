"""Two processes on one run: the numbers of one process, each target once, and a resume after one of them is killed."""

from pathlib import Path

import numpy as np
import pytest

from peso.training.processes import gather_shares, own_share
from peso.training.stream import run_stream
from runs import assert_same_run
from streams import config, fill
from torchruns import resume_after_a_kill, start

TRAINING = {"epochs": 3, "rate_factors": [0.5, 0.25, 1.0]}
CHOSEN = config(method="peso", training=TRAINING, evaluation={"next_block": "ranks"})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_stream(fill(tmp_path_factory.mktemp("alone") / "world"), CHOSEN)


def test_two_processes_end_with_the_numbers_of_one(tmp_path: Path, alone: Path) -> None:
    workspace = fill(tmp_path / "world")
    process = start(workspace, CHOSEN)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    folder = workspace / "runs" / alone.name
    assert output.decode().splitlines()[-1] == str(folder / "result.json"), "one process speaks, the other is silent"
    assert_same_run(folder, alone)
    assert not [path for path in workspace.rglob("*") if path.name.startswith(".tmp-")]


def test_a_run_resumes_after_one_process_is_killed(tmp_path: Path, alone: Path) -> None:
    workspace = fill(tmp_path / "world")
    resume_after_a_kill(workspace, CHOSEN)
    assert_same_run(workspace / "runs" / alone.name, alone)


def test_one_process_has_the_whole_share() -> None:
    entries = np.arange(5)
    assert own_share(entries).tolist() == [0, 1, 2, 3, 4]
    (gathered,) = gather_shares(5, entries)
    assert gathered is entries
