"""Several processes on one run: each computes its share, the first writes, all know the same in the end.

`torchrun` starts them. Without it there is one process, and nothing here does anything. All take the same decisions
from the same numbers: what is summed over processes is equal everywhere, bit for bit, and files are read by everyone
after the first has written them, so the workspace must be one that all of them see.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from filelock import BaseFileLock
from numpy.typing import NDArray
from torch import Tensor

from peso.config import RunConfig
from peso.errors import ConfigError
from peso.files import atomic_directory

Number = TypeVar("Number", bound=np.generic)
Share = TypeVar("Share")


def join_processes() -> None:
    """Joins the processes that `torchrun` has started, if it has; each takes the accelerator of its local number."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")


def leave_processes() -> None:
    """Parts from the other processes, after a run that went well."""
    if dist.is_initialized():
        dist.destroy_process_group()


def num_processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_number() -> int:
    """This one's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def check_processes(config: RunConfig, number: int) -> None:
    """Whether there are enough for what a run wants.

    Args:
        config: of the run.
        number: how many there are, or will be.

    Raises:
        ConfigError: shards are wanted, and there is nobody to share with.
    """
    if config.training.sharding != "none" and number == 1:
        raise ConfigError(
            f'training.sharding "{config.training.sharding}" shares a backbone out among processes, and there is one; '
            'start several with torchrun (peso plan: --processes), or leave it at "none".'
        )


def shares_backbone(config: RunConfig) -> bool:
    """Whether each process keeps a shard of the frozen backbone; one that reads a finished run alone has it whole."""
    return config.training.sharding == "fsdp" and num_processes() > 1


def is_first() -> bool:
    """Whether this process writes."""
    return process_number() == 0


def wait_for_all() -> None:
    """Returns once every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def own_share(entries: NDArray[Number]) -> NDArray[Number]:
    """Every n-th entry of an array that all processes hold: no entry is dropped, none is taken twice."""
    return share_of(entries, process_number())


def share_of(entries: NDArray[Number], process: int) -> NDArray[Number]:
    """What `own_share` is in a process."""
    return entries[process :: num_processes()]


def gather_shares(num_entries: int, *shares: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The whole of what every process has a share of, as `own_share` gives them out.

    Args:
        num_entries: of the whole, N.
        *shares: this process's rows [n, ...].

    Returns:
        [N, ...] for each, equal in every process.
    """
    if not dist.is_initialized():
        return shares
    wholes = []
    for share in shares:
        whole = torch.zeros((num_entries, *share.shape[1:]), dtype=torch.from_numpy(share).dtype)
        whole[process_number() :: num_processes()] = torch.from_numpy(share)
        add_over_processes(whole)
        wholes.append(whole.numpy())
    return tuple(wholes)


def own_passes(shares: Sequence[Sequence[Share]], in_step: bool) -> Iterator[tuple[Share, bool]]:
    """This process's passes, and whether each counts.

    Args:
        shares: what every process has to pass over, by their numbers.
        in_step: whether all must make as many passes: those with fewer then repeat one that counts for nothing.

    Yields:
        Its entries, True; then, in step, an entry of somebody's, False, until all have made as many.
    """
    own = shares[process_number()]
    for share in own:
        yield share, True
    longest = max(shares, key=len)
    for _ in range(len(longest) - len(own) if in_step else 0):
        yield longest[0], False


def add_over_processes(values: Tensor) -> None:
    """Replaces a tensor by its sum over processes."""
    if dist.is_initialized():
        dist.all_reduce(values)


def take_from_first(values: Tensor) -> None:
    """Replaces a tensor by the first process's."""
    if dist.is_initialized():
        dist.broadcast(values, src=0)


@contextmanager
def written_by_first(path: Path) -> Iterator[Path | None]:
    """Yields an empty directory that becomes `path`, to the first process; None to others.

    All processes leave together, when `path` is there.
    """
    with atomic_directory(path) if is_first() else nullcontext() as temporary:
        yield temporary
    wait_for_all()


@contextmanager
def locked_by_first(lock: BaseFileLock, timeout_seconds: float = -1) -> Iterator[None]:
    """Holds a lock, in the first process, for all of them.

    Args:
        lock: of a file.
        timeout_seconds: how long to wait for it; forever if negative.

    Raises:
        Timeout: another run held it for all that time.
    """
    with lock.acquire(timeout=timeout_seconds) if is_first() else nullcontext():
        wait_for_all()
        yield
        wait_for_all()
