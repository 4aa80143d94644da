"""Lists of all users at once: those that each user gets alone, shard by shard, and a stopped job goes on."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from peso.config import make_config
from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import save_dataset
from peso.errors import WorkspaceError
from peso.semantic_ids.adding import add_items
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.training.all_users import AllUsersJob, load_lists, open_job, plan_job, recommend_for_all, write_shard
from peso.training.base import load_state, read_base
from peso.training.materials import load_materials
from peso.training.measure import memory_after
from peso.training.recommending import recommend_for_user
from peso.training.stream import run_stream
from peso.training.user_lists import UserLists
from streams import config, fill


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = fill(tmp_path_factory.mktemp("all") / "world")
    run_stream(workspace, config(method="single"))
    return workspace


def test_everyone_gets_what_they_get_alone(workspace: Path, tmp_path: Path) -> None:
    output = recommend_for_all(plan_job(workspace, 5, output=tmp_path / "lists", shard_users=25))
    parts = sorted(output.glob("part-*.parquet"))
    assert len(parts) == 3
    table = pl.concat(map(pl.read_parquet, parts))
    assert table["user_id"].unique(maintain_order=True).to_list() == [f"u{number:05}" for number in range(60)]
    assert table.group_by("user_id").len()["len"].to_list() == [5] * 60
    for user in ("u00000", "u00024", "u00025", "u00059"):
        alone = recommend_for_user(workspace, user, 5)["recommendations"]
        rows = table.filter(pl.col("user_id") == user)
        assert rows["position"].to_list() == [1, 2, 3, 4, 5]
        assert rows["item_id"].to_list() == [item["item_id"] for item in alone]
        np.testing.assert_allclose(rows["score"], [item["score"] for item in alone], rtol=1e-5)


def test_the_memory_weighs_what_the_run_chose(workspace: Path) -> None:
    lists = load_lists(plan_job(workspace, 5))
    materials = load_materials(workspace, make_config(workspace / "runs" / lists.run_id / "config.toml"))
    base = read_base(materials, workspace / "bases")
    _, reader = load_state(materials, base, workspace / "runs" / lists.run_id / "adapters" / "block_2")
    chosen = memory_after(materials, reader, 2)
    assert lists.memory is not None and chosen is not None
    assert lists.memory.weights == chosen.weights


def test_a_stopped_job_goes_on(workspace: Path, tmp_path: Path) -> None:
    job = plan_job(workspace, 5, output=tmp_path / "lists", shard_users=25)
    lists = load_lists(job)
    with pytest.raises(KeyboardInterrupt), open_job(job) as shards:
        assert shards == [0, 1, 2]
        write_shard(job, lists, 1)
        with pytest.raises(WorkspaceError, match="is being written by another process"), open_job(job):
            pass
        raise KeyboardInterrupt
    assert not job.output.exists()
    written = job.part(1).stat().st_mtime_ns
    assert plan_job(workspace, 4, output=tmp_path / "lists", shard_users=25).parts != job.parts, "another job"
    recommend_for_all(plan_job(workspace, 5, output=tmp_path / "lists", shard_users=25))
    assert (job.output / job.part(1).name).stat().st_mtime_ns == written
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lists.lock", "lists"]


def assert_no_two_catalogues_in_a_job(job: AllUsersJob, before: UserLists) -> None:
    """Of a job that was begun `before` items were added."""
    with pytest.raises(WorkspaceError, match="changed after this job began"), open_job(job):
        write_shard(job, before, 0)
        write_shard(job, load_lists(job), 1)
    assert not job.part(1).exists()
    again = plan_job(job.workspace, job.num_items, output=job.output, shard_users=job.shard_users)
    assert again.parts != job.parts
    with pytest.raises(WorkspaceError, match="run the command again"):
        write_shard(again, before, 0)
    facts = json.loads((recommend_for_all(again) / "facts.json").read_text(encoding="utf-8"))
    assert facts["catalogue"] == again.catalogue != job.catalogue


def test_a_folder_of_something_else_is_not_replaced(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine", encoding="utf-8")
    with pytest.raises(WorkspaceError, match=r"holds 'notes\.md', which is no part of recommendations"):
        plan_job(workspace, 5, output=tmp_path)
    with pytest.raises(WorkspaceError, match="would be lost"):
        plan_job(workspace, 5, output=workspace)
    with pytest.raises(WorkspaceError, match="is a file"):
        plan_job(workspace, 5, output=tmp_path / "notes.md")
    assert (tmp_path / "notes.md").read_text(encoding="utf-8") == "mine"


def test_lists_keep_places_for_added_items(tmp_path: Path) -> None:
    """An item that was added a moment ago has a place in every list, the best of its kind first."""
    workspace = tmp_path / "world"
    world = simulate(SimulationSettings(num_users=40, num_items=120, num_blocks=2))
    save_dataset(world.dataset, workspace / "data")
    encode_workspace(workspace, EncodingRequest("tfidf", "rq-kmeans", (8, 8, 8)))
    run_stream(workspace, config(method="single", decoding={"beam_width": 20, "new_item_share": 0.2}))
    pl.DataFrame({"item_id": ["x", "y"], "title": list(world.dataset.titles[:2])}).write_csv(tmp_path / "new.csv")
    without = recommend_for_user(workspace, "u00003", 5)["recommendations"]
    job = plan_job(workspace, 5, output=tmp_path / "lists", shard_users=25)
    before = load_lists(job)
    add_items(workspace, tmp_path / "new.csv")
    assert_no_two_catalogues_in_a_job(job, before)
    listed = recommend_for_user(workspace, "u00003", 5)["recommendations"]
    new = {"x", "y"} | {
        world.dataset.item_ids[item] for item in np.flatnonzero(world.dataset.item_first_block >= 1).tolist()
    }
    for some in (without, listed):
        assert any(item["item_id"] in new for item in some)
        assert [item["score"] for item in some] == sorted((item["score"] for item in some), reverse=True)
