"""A Ray cluster of this machine, and the sudden death of its workers."""

import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from peso.errors import DataError

MAX_SECONDS = 240
"""Until a pool that works has to be through, or at the moment that a test waits for, on a busy machine as well."""


@contextmanager
def local_cluster() -> Iterator[None]:
    """Two CPUs' worth of it; skips the test where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed; make install brings it")
    os.environ["OMP_NUM_THREADS"] = "1"
    # Workers are processes of their own: what pytest put on this one's path they find by the environment.
    own = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])
    from peso.scale.cluster import joined_cluster

    with joined_cluster(num_cpus=2) as num_cpus:
        assert num_cpus == 2
        yield


def workers(title: str) -> list[psutil.Process]:
    """Living processes of this cluster whose title holds some words."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline() and title in process.cmdline()[0]:
                found.append(process)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def kill_one(title: str, when: Callable[[], bool]) -> int:
    """Waits, then kills a worker without a last word.

    Args:
        title: see `workers`.
        when: the moment.

    Returns:
        Its process id.
    """
    deadline = time.monotonic() + MAX_SECONDS
    while not when():
        assert time.monotonic() < deadline, "the moment to kill a worker never came"
        time.sleep(0.002)
    victim = workers(title)[-1]
    os.kill(victim.pid, signal.SIGKILL)
    return victim.pid


class Refusing:
    """Work that no worker does."""

    def load(self) -> None:
        return None

    def do(self, loaded: None, number: int) -> int:
        raise DataError(f"piece {number} is not to my taste.")
