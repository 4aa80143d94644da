"""On a Ray cluster whose workers are killed: what one process computes, byte for byte or up to rounding of sums."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest

from clusters import MAX_SECONDS, Refusing, kill_one, local_cluster
from peso.data.item_times import save_item_times
from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import load_dataset, save_dataset
from peso.errors import DataError, WorkspaceError
from peso.scale.batches import Pool, done_in_pool
from peso.scale.encoding import encode_in_pool
from peso.scale.recommending import recommend_in_pool
from peso.scale.stream import run_stream_in_pool
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.training.all_users import AllUsersJob, plan_job, recommend_for_all
from peso.training.stream import run_stream
from runs import assert_same_run
from streams import config, fill

ACTOR, WORKER = "ray::MapWorker", "ray::RayTrainWorker"
SHARD_USERS = 4

pytestmark = pytest.mark.filterwarnings("default")  # Ray warns of itself


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with local_cluster():
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = fill(tmp_path_factory.mktemp("scale") / "world", num_users=400)
    run_stream(workspace, config(method="single", evaluation={"next_block": "off"}))
    return workspace


def job(workspace: Path, output: Path) -> AllUsersJob:
    return plan_job(workspace, 5, output=output, shard_users=SHARD_USERS)


@pytest.fixture(scope="module")
def alone(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return contents(recommend_for_all(job(workspace, tmp_path_factory.mktemp("alone") / "lists")))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


def test_lists_are_those_of_one_process_even_if_an_actor_is_killed(
    workspace: Path, tmp_path: Path, alone: dict[str, bytes]
) -> None:
    ours = job(workspace, tmp_path / "lists")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(recommend_in_pool, ours, Pool(num_workers=1))
        dead = kill_one(ACTOR, when=lambda: ours.part(3).exists())
        num_open = len(ours.open_shards())
        output = running.result(timeout=MAX_SECONDS)
    assert num_open > 10, "it was killed in the middle"
    assert not psutil.pid_exists(dead)
    assert len(alone) == 400 // SHARD_USERS + 1
    assert contents(output) == alone


def test_an_operator_s_places_for_new_items_reach_the_actors(workspace: Path, tmp_path: Path) -> None:
    dataset = load_dataset(workspace / "data")
    save_item_times(workspace / "data", dataset.item_ids, dataset.item_first_block * 86_400_000_000)
    latest = np.flatnonzero(dataset.item_first_block == dataset.num_blocks - 1)
    newest = {dataset.item_ids[item] for item in latest.tolist()}
    assert newest
    places = {"new_item_share": 0.6, "new_since": f"1970-01-0{dataset.num_blocks}"}
    ours, theirs = (plan_job(workspace, 5, output=tmp_path / name, decoding=places) for name in ("ours", "theirs"))
    assert contents(recommend_in_pool(ours, Pool(num_workers=1))) == contents(recommend_for_all(theirs))
    lists = pl.read_parquet(ours.output / "*.parquet").group_by("user_id").agg(pl.col("item_id"))
    assert all(len(newest.intersection(items)) >= 3 for items in lists["item_id"].to_list())


def test_what_a_worker_refuses_is_said_plainly() -> None:
    with pytest.raises(DataError, match=r"^piece 3 is not to my taste\.$"):
        list(done_in_pool(Refusing(), [3], Pool(num_workers=1)))


def test_a_run_is_that_of_one_process_even_if_a_worker_is_killed(tmp_path: Path) -> None:
    chosen = config(method="peso", evaluation={"next_block": "ranks"})
    alone = run_stream(fill(tmp_path / "alone"), chosen)
    workspace = fill(tmp_path / "world")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_stream_in_pool, workspace, chosen, Pool(num_workers=2))
        kill_one(WORKER, when=lambda: any(workspace.glob("runs/*/checkpoint_block_1.safetensors")))
        assert not any(workspace.glob("runs/*/result.json")), "it was killed in the middle"
        folder = running.result(timeout=MAX_SECONDS)
    assert_same_run(folder, alone)
    with pytest.raises(WorkspaceError, match="is finished already"):
        run_stream_in_pool(workspace, chosen, Pool(num_workers=2))


def test_codes_are_those_of_one_process(tmp_path: Path) -> None:
    alone, workspace = tmp_path / "alone", tmp_path / "world"
    world = simulate(SimulationSettings(num_users=150, num_items=1200, num_blocks=2))
    request = EncodingRequest("tfidf", "rq-kmeans", (8, 16, 32))
    for folder in (alone, workspace):
        save_dataset(world.dataset, folder / "data")
    encode_workspace(alone, request)
    encode_in_pool(workspace, request, Pool(num_workers=1))
    for name in ("vectors", "data/semantic_ids"):
        assert contents(workspace / name) == contents(alone / name)
    assert len(contents(alone / "vectors")) == 3
