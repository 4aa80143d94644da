"""A run of the stream by Ray Train: the processes of `torchrun`, started and restarted by Ray on any machines.

Every worker calls the very function that a process of `torchrun` calls. A worker that dies takes the others with it;
Ray starts them all again, elsewhere if need be, and the run continues after its last epoch or whole piece.
"""

import shutil
from pathlib import Path
from typing import Any

from peso.config import RunConfig, make_config
from peso.errors import PesoError, WorkspaceError
from peso.scale.batches import Pool
from peso.training.finished import RESULT
from peso.training.materials import load_materials
from peso.training.stream import refuse_again, run_stream

NOTES = ".ray"
"""Folder in the workspace: what Ray Train notes of its own doings while a run lasts."""


def run_stream_in_pool(
    workspace: Path, config: RunConfig, pool: Pool, resume: bool = False, max_failures: int = 3
) -> Path:
    """Runs one method over every block, in the cluster that this process is in.

    Args:
        workspace: as for `run_stream`; every machine must see it under the same path.
        config: everything that decides the outcome.
        pool: the workers.
        resume: continue an interrupted run, or return a finished one.
        max_failures: how often all workers may be started again after one was lost.

    Returns:
        The run's folder, with `result.json`.

    Raises:
        WorkspaceError: no data, the run exists and `resume` is false, or workers were lost too often.
        PesoError: what `run_stream` raised in a worker.
    """
    from ray.exceptions import RayError
    from ray.train import FailureConfig, ScalingConfig, WorkerGroupError
    from ray.train import RunConfig as RayConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    workspace = workspace.resolve()
    folder = workspace / "runs" / load_materials(workspace, config).run_id
    if not resume:
        refuse_again(folder, (folder / RESULT).exists(), folder.exists())
    notes = workspace / NOTES
    on_gpu = pool.gpus_per_worker > 0
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"workspace": str(workspace), "config": config.model_dump(mode="json")},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=pool.num_workers, use_gpu=on_gpu, resources_per_worker={"CPU": pool.cpus_per_worker}
        ),
        run_config=RayConfig(
            name=folder.name,
            storage_path=str(notes),
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        failures = list(error.worker_failures.values())
        refused = next((failure for failure in failures if isinstance(failure, PesoError)), None)
        if refused is not None:
            raise refused from None
        if not any(isinstance(failure, RayError) for failure in failures):
            raise
        raise WorkspaceError(
            f"run {folder.name}: workers were lost {max_failures + 1} times; add --resume to go on where it stopped."
        ) from None
    shutil.rmtree(notes, ignore_errors=True)
    return folder


def _worker(settings: dict[str, Any]) -> None:
    run_stream(Path(settings["workspace"]), make_config(None, settings["config"]), resume=True)
