"""Recommendations for all users on many machines: shards go to actors that have loaded the model once.

An actor writes a shard's table where all machines see it, in one step, and only a number travels back. If an actor or
its machine is lost, Ray starts another and gives it the shards that were under way; those that were finished stay.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from peso.scale.batches import Pool, done_in_pool
from peso.training.all_users import AllUsersJob, load_lists, open_job, write_shard
from peso.training.user_lists import UserLists

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardWork:
    """A piece is a shard.

    Attributes:
        job: the job.
    """

    job: AllUsersJob

    def load(self) -> UserLists:
        """See `Work.load`."""
        return load_lists(self.job)

    def do(self, loaded: UserLists, number: int) -> int:
        """See `Work.do`; in users."""
        return write_shard(self.job, loaded, number)


def recommend_in_pool(job: AllUsersJob, pool: Pool) -> Path:
    """Does a whole job in the cluster that this process is in; the tables are those of `recommend_for_all`.

    Args:
        job: the job; every machine must see its folders under the same paths.
        pool: the actors.

    Returns:
        The output.

    Raises:
        WorkspaceError: another process writes the same output.
    """
    with open_job(job) as shards:
        num_done = 0
        for num_users in done_in_pool(ShardWork(job), shards, pool):
            num_done += num_users
            log.info("%d of %d users", num_done, job.num_users)
    return job.output
