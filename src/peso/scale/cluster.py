"""The door to Ray: an optional extra, joined once per process, its usage statistics off."""

import importlib.util
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from peso.errors import ConfigError, InstallationError

LOCAL = "local"
_SECONDS_TO_ANSWER = 10


def require_ray() -> None:
    """Checks that Ray is installed.

    Raises:
        InstallationError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise InstallationError(
            "peso scale needs the library ray, which is not installed; install it with: pip install 'peso-rec[scale]'."
        )


@contextmanager
def joined_cluster(address: str = LOCAL, num_cpus: int | None = None) -> Iterator[int]:
    """Joins a Ray cluster, or stays in the one this process is in already.

    Args:
        address: "local" starts a cluster of this machine alone; "auto" finds the one that this machine belongs to;
            anything else is where a cluster's head listens.
        num_cpus: of a cluster that is started here; all of the machine's by default.

    Yields:
        CPUs of the cluster.

    Raises:
        InstallationError: Ray is not installed.
        ConfigError: no cluster answers there.
    """
    require_ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        try:
            _knock(address)
            ray.init(address, num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level="error")
        except (OSError, OverflowError, ImportError, ValueError, RuntimeError) as error:
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(f"--address {address}: no Ray cluster could be joined ({first_line}).") from None
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        if is_ours:
            ray.shutdown()


def _knock(address: str) -> None:
    """Whether anything listens at HOST:PORT; Ray itself would wait for minutes.

    Raises:
        OSError: nothing does.
        ValueError: this is no such address.
    """
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("it is not local, auto or HOST:PORT")
    with socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER):
        pass


def quiet_ray_data() -> None:
    """Ray Data says nothing but errors: progress is peso's own to tell."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def workers_that_fit(num_workers: int | None, cpus_per_worker: int, num_cpus: int) -> int:
    """How many workers to start.

    Args:
        num_workers: as wished; None for as many as there is room for.
        cpus_per_worker: of each.
        num_cpus: of the cluster.

    Raises:
        ConfigError: the cluster is too small; Ray would wait for more machines for ever.
    """
    room = num_cpus // cpus_per_worker
    if room < (num_workers or 1):
        raise ConfigError(
            f"--workers {num_workers or 1} with --cpus {cpus_per_worker} each need "
            f"{(num_workers or 1) * cpus_per_worker} CPUs, and the Ray cluster has {num_cpus}; ask for less or join a "
            "larger one by --address."
        )
    return num_workers or room
