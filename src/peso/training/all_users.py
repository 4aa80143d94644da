"""Recommendations for every user of a workspace, shard by shard, each shard a Parquet table of its own.

A shard is the same users in the same order whoever computes it, so its table is too. Finished shards are kept beside
the output under the hash of what decides them: a job that was stopped, or a worker that was lost, costs the shards that
were not finished.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock, Timeout

from peso.config import make_config
from peso.data.item_choice import EVERYTHING, ItemChoice
from peso.data.item_times import require_item_times
from peso.data.storage import read_facts
from peso.errors import WorkspaceError
from peso.files import atomic_path, hash_of_json, remove_leftovers, replace_directory, write_json
from peso.semantic_ids.added_items import stored_catalogue
from peso.training.finished import finished_run
from peso.training.user_lists import UserLists, load_user_lists

log = logging.getLogger(__name__)

FOLDER = "recommendations"
_FACTS = "facts.json"
SHARD_USERS = 4096
"""Enough for full batches of every length, few enough that a lost shard costs seconds to minutes."""


@dataclass(frozen=True)
class AllUsersJob:
    """What to compute and where it goes; plain values, so that any process can take part.

    Attributes:
        workspace: with a finished run.
        run_id: the run.
        num_items: list length k.
        num_users: all of the workspace's.
        shard_users: users of a shard; the last may have fewer.
        output: folder that the tables end in.
        parts: folder of finished shards while others are open.
        decoding: options of `decoding` that differ from the run's.
        catalogue: fingerprint of the items that a run's lists may name.
        choice: which of them these lists may name.
    """

    workspace: Path
    run_id: str
    num_items: int
    num_users: int
    shard_users: int
    output: Path
    parts: Path
    decoding: Mapping[str, Any]
    catalogue: str
    choice: ItemChoice

    @property
    def num_shards(self) -> int:
        """At least 1."""
        return -(-self.num_users // self.shard_users)

    def part(self, shard: int) -> Path:
        """The file of a finished shard."""
        return self.parts / f"part-{shard:06}.parquet"

    def open_shards(self) -> list[int]:
        """Those that are not finished, ascending."""
        return [shard for shard in range(self.num_shards) if not self.part(shard).exists()]


def plan_job(
    workspace: Path,
    num_items: int,
    run_id: str | None = None,
    output: Path | None = None,
    shard_users: int = SHARD_USERS,
    decoding: Mapping[str, Any] | None = None,
    choice: ItemChoice = EVERYTHING,
) -> AllUsersJob:
    """Settles a job without loading anything large; an equal job that was stopped goes on.

    Args:
        workspace: a folder with at least one finished run.
        num_items: list length k.
        run_id: which run; the one finished last by default.
        output: folder for the tables, replaced when all are there; `W/recommendations/<run id>` by default.
        shard_users: users of a shard.
        decoding: options of `decoding` that differ from the run's.
        choice: what may be named of what the run may name.

    Raises:
        WorkspaceError: there is no finished run, or not this one, or no data; or the output is something else's.
        ConfigError: the options are wrong.
    """
    folder = finished_run(workspace, run_id)
    run, decoding = folder.name, dict(decoding or {})
    if make_config(folder / "config.toml", {"decoding": decoding}).decoding.new_since is not None:
        require_item_times(workspace / "data")
    facts = read_facts(workspace / "data" / "dataset.json", "facts of the data set", {"num_users": int})
    catalogue = stored_catalogue(workspace)
    decided_by = [run, num_items, shard_users, catalogue, *([decoding] if decoding else [])]
    decided_by += [] if choice.is_everything else [choice.fingerprint]
    output = (output or workspace / FOLDER / run).resolve()
    _check_output(output)
    parts = output.with_name(f".parts-{output.name}-{hash_of_json(decided_by)[:16]}")
    return AllUsersJob(
        workspace.resolve(), run, num_items, facts["num_users"], shard_users, output, parts, decoding, catalogue, choice
    )


def _check_output(output: Path) -> None:
    """Only an earlier output is ever replaced."""
    if not output.exists():
        return
    if not output.is_dir():
        raise WorkspaceError(f"--output {output} is a file; name a folder.")
    other = sorted(
        file.name for file in output.iterdir() if file.name != _FACTS and not fnmatch(file.name, "part-*.parquet")
    )
    if other:
        raise WorkspaceError(
            f"--output {output} holds {other[0]!r}, which is no part of recommendations and would be lost; name a new "
            "folder."
        )


def load_lists(job: AllUsersJob) -> UserLists:
    """What every process of a job loads once."""
    return load_user_lists(job.workspace, job.num_items, job.run_id, job.decoding, choice=job.choice)


def write_shard(job: AllUsersJob, lists: UserLists, shard: int) -> int:
    """Computes one shard and writes its table in one step; one that is there already stays.

    Args:
        job: the job.
        lists: of `load_lists`.
        shard: its number.

    Returns:
        Users of the shard.

    Raises:
        WorkspaceError: the lists are of another catalogue than the job's.
    """
    start = shard * job.shard_users
    users = np.arange(start, min(start + job.shard_users, job.num_users))
    if not job.part(shard).exists():
        if lists.catalogue != job.catalogue:
            raise WorkspaceError(
                f"the items of {job.workspace} changed after this job began, and its lists would name those of two "
                "catalogues; run the command again for lists of the present items."
            )
        with atomic_path(job.part(shard)) as temporary:
            list_table(lists, users).write_parquet(temporary)
    return len(users)


def list_table(lists: UserLists, users: np.ndarray) -> pl.DataFrame:
    """Lists of some users as rows.

    Args:
        lists: the model.
        users: int64 [B].

    Returns:
        Columns user_id, position (1 = first), item_id and score (log-probability in nats, float32), user after user.
    """
    items, scores = lists.recommend(users)
    is_listed = (items >= 0) & np.isfinite(scores)
    rows, places = np.nonzero(is_listed)
    return pl.DataFrame(
        {
            "user_id": [lists.dataset.user_ids[user] for user in users[rows].tolist()],
            "position": places + 1,
            "item_id": [lists.item_id(item) for item in items[is_listed].tolist()],
            "score": scores[is_listed],
        },
        schema={"user_id": pl.String, "position": pl.Int32, "item_id": pl.String, "score": pl.Float32},
    )


@contextmanager
def open_job(job: AllUsersJob) -> Iterator[list[int]]:
    """Yields the shards to compute; on a clean exit, which needs them all, they become the output in one step.

    The output holds `part-*.parquet` in user order, and `facts.json`. On an exception finished shards stay.

    Raises:
        WorkspaceError: another process writes the same output.
    """
    job.output.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(job.output.with_name(f".{job.output.name}.lock")).acquire(timeout=0))
        except Timeout:
            raise WorkspaceError(f"{job.output} is being written by another process; wait for it to end.") from None
        job.parts.mkdir(exist_ok=True)
        remove_leftovers(job.parts)
        yield job.open_shards()
        missing = job.open_shards()
        assert not missing, f"shards {missing} were not computed"
        facts = {"run_id": job.run_id, "num_items": job.num_items, "num_users": job.num_users}
        facts |= {"decoding": dict(job.decoding), "catalogue": job.catalogue}
        facts |= {} if job.choice.is_everything else {"items": job.choice.fingerprint}
        write_json(job.parts / _FACTS, facts | {"num_parts": job.num_shards})
        replace_directory(job.parts, job.output)


def recommend_for_all(job: AllUsersJob) -> Path:
    """Does a whole job in this process.

    Returns:
        The output.

    Raises:
        WorkspaceError: another process writes the same output.
    """
    with open_job(job) as shards:
        if shards:
            lists = load_lists(job)
        for shard in shards:
            write_shard(job, lists, shard)
            log.info("%d of %d users", min((shard + 1) * job.shard_users, job.num_users), job.num_users)
    return job.output
