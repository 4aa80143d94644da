"""Runs of a study in processes of their own: the same results, and errors that reach the one who asked."""

import logging
import multiprocessing
import threading
import time
from pathlib import Path

import polars as pl
import psutil
import pytest

from peso.config import make_config
from peso.errors import ConfigError, WorkspaceError
from peso.studies.registry import run_study
from peso.studies.side_by_side import Job, run_side_by_side, spread_over_bases
from processes import SERVER
from worlds import TINY_CONFIG, fill_workspace, tiny_dataset


def targets(workspace: Path) -> dict[str, pl.DataFrame]:
    return {path.parent.name: pl.read_parquet(path) for path in workspace.glob("runs/*/targets.parquet")}


def fill(folder: Path) -> Path:
    fill_workspace(folder, tiny_dataset(30, 40, 3))
    (folder / "small.toml").write_text(TINY_CONFIG)
    return folder


def test_side_by_side_gives_the_results_of_one_after_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone, beside = fill(tmp_path / "alone"), fill(tmp_path / "beside")
    run_study("matrix", alone, 2, tmp_path / "a", alone / "small.toml")
    logger = logging.getLogger()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, "peso")
    record = run_study("matrix", beside, 2, tmp_path / "b", beside / "small.toml", num_jobs=2)
    assert record["command"].endswith("--jobs 2")
    theirs, ours = targets(alone), targets(beside)
    assert len(ours) == 4
    assert theirs.keys() == ours.keys()
    assert all(ours[run].equals(theirs[run]) for run in ours)
    lines = [one.getMessage() for one in caplog.records]
    assert any(line.startswith("[peso, seed 1] block_2: epoch 1/2") for line in lines)


def test_an_error_of_a_run_is_the_study_s(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="holds no data"):
        run_side_by_side([Job("one", tmp_path / "none", make_config(None))], 2)
    with pytest.raises(ConfigError, match="--jobs 0"):
        run_study("matrix", tmp_path, 1, tmp_path / "results", num_jobs=0)


def test_a_killed_process_is_told_of(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "work")
    config = make_config(None, {"backbone": {"epochs": 1000}})

    def kill_when_there() -> None:
        while not (found := multiprocessing.active_children()):
            time.sleep(0.01)
        found[0].kill()

    killer = threading.Thread(target=kill_when_there)
    killer.start()
    with pytest.raises(WorkspaceError, match="fewer --jobs"):
        run_side_by_side([Job("one", workspace, config)], 2)
    killer.join()


def test_a_killed_study_leaves_no_process(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "work")
    job = Job("one", workspace, make_config(None, {"backbone": {"epochs": 1000}}))
    study = SERVER.Process(target=run_side_by_side, args=([job], 2))
    study.start()
    while not list(workspace.glob("bases/unfinished-*/*.safetensors")):
        assert study.is_alive()
        time.sleep(0.05)
    children = psutil.Process(study.pid).children(recursive=True)
    assert children
    study.kill()
    study.join()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_runs_that_share_a_base_do_not_begin_together() -> None:
    jobs = [
        Job(f"{world} {method} {seed}", Path(world), make_config(None, {"seed": seed}))
        for seed in (0, 1) for world in "ab" for method in ("frozen", "peso")
    ]  # fmt: skip
    order = [job.name for job in spread_over_bases(jobs)]
    assert order[:4] == ["a frozen 0", "b frozen 0", "a frozen 1", "b frozen 1"]
    assert order[4:] == ["a peso 0", "b peso 0", "a peso 1", "b peso 1"]
