"""Recommendations for all users: Ray's actors against one process, and what starting a cluster costs.

Every side runs on one thread per worker. A rate is taken between the first finished shards and the last one, so that
starting and loading, which cost the same for a thousand users and for a hundred million, are counted apart.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Outcome, Target, compare, run_benchmark
from peso.config import make_config
from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import save_dataset
from peso.scale.batches import Pool
from peso.scale.cluster import joined_cluster
from peso.scale.recommending import recommend_in_pool
from peso.semantic_ids.catalogue import build_semantic_ids
from peso.training.all_users import AllUsersJob, plan_job, recommend_for_all
from peso.training.stream import run_stream

USERS, QUICK_USERS = 4096, 1024
_SHARD_USERS = 128
_TURNS, _QUICK_TURNS = 3, 1
_ONE_EPOCH = {"epochs": 1, "base_epochs": 1}
_SHARE_OF_ONE_PROCESS = 0.9


def prepare(workspace: Path, num_users: int) -> None:
    """A simulated world with a finished run; one epoch, as speed does not depend on what the weights are."""
    world = simulate(SimulationSettings(num_users=num_users, num_items=4000, num_blocks=2))
    save_dataset(world.dataset, workspace / "data")
    ids = build_semantic_ids(world.dataset, world.source_codes, world.level_sizes)
    ids.save(workspace / "data" / "semantic_ids", world.dataset.item_ids)
    overrides = {"method": "frozen", "backbone": {"epochs": 1}, "training": _ONE_EPOCH}
    run_stream(workspace, make_config(None, overrides | {"evaluation": {"next_block": "off"}}))


def seconds_per_user(output: Path, num_first: int) -> float:
    """Between the first shards (one per worker) and the last one.

    Args:
        output: of a job, each table as old as it is.
        num_first: workers.
    """
    finished = sorted(part.stat().st_mtime_ns for part in output.glob("part-*.parquet"))
    return (finished[-1] - finished[num_first - 1]) / 1e9 / (len(finished) - num_first) / _SHARD_USERS


def measure(quick: bool) -> Outcome:
    """Times the sides in turns, and compares what they write."""
    num_users = QUICK_USERS if quick else USERS
    torch.set_num_threads(1)
    starting: dict[str, list[float]] = {"cluster": [], "one_worker": []}
    with tempfile.TemporaryDirectory(prefix="peso-scale-") as name:
        workspace = Path(name) / "world"
        prepare(workspace, num_users)

        def job(side: str) -> AllUsersJob:
            return plan_job(workspace, 10, output=Path(name) / side, shard_users=_SHARD_USERS)

        def alone() -> float:
            return seconds_per_user(recommend_for_all(job("alone")), 1)

        def pooled(num_workers: int) -> float:
            started = time.perf_counter()
            output = recommend_in_pool(job(f"workers_{num_workers}"), Pool(num_workers))
            seconds = time.perf_counter() - started
            per_user = seconds_per_user(output, num_workers)
            if num_workers == 1:
                starting["one_worker"].append(seconds - per_user * num_users)
            return per_user

        started = time.perf_counter()
        with joined_cluster(num_cpus=2):
            starting["cluster"].append(time.perf_counter() - started)
            comparison = compare(
                {"one_process": alone, "ray_1_worker": lambda: pooled(1), "ray_2_workers": lambda: pooled(2)},
                _QUICK_TURNS if quick else _TURNS,
                warm_up=0,
            )
        tables = [sorted((Path(name) / side).glob("part-*")) for side in ("alone", "workers_1", "workers_2")]
        written = [[part.read_bytes() for part in parts] for parts in tables]
        bytes_per_user = sum(map(len, written[0])) / (len(written[0]) * _SHARD_USERS)
    assert written[0] == written[1] == written[2], "Ray's tables differ from those of one process"
    targets = {
        "ray_1_worker_over_one_process": Target(
            comparison.ratio("one_process", "ray_1_worker"), _SHARE_OF_ONE_PROCESS, unit="x"
        )
    }
    details = {
        "users_per_second": {side: 1 / comparison.median(side) for side in comparison.measured},
        "ray_2_workers_over_one": comparison.ratio("ray_1_worker", "ray_2_workers"),
        "seconds_to_start": {side: float(np.median(values)) for side, values in starting.items()},
        "parquet_bytes_per_user": bytes_per_user,
        "users": num_users,
        "users_per_shard": _SHARD_USERS,
        "equal_bytes": True,
    }
    return Outcome(targets, details)


if __name__ == "__main__":
    run_benchmark("scale", __doc__, measure)
