"""Processes of tests, born with the libraries imported.

Importing torch, transformers and peft takes longer than most of what tests do in a process of its own: a server that
has imported them, and done nothing else, forks a process for each.
"""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.multiprocessing.spawn import start_processes

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["peso.studies.registry"])


def wait_for(folder: Path, pattern: str, is_running: Callable[[], bool], seconds: float = 300) -> None:
    """Returns as soon as a file or folder of this pattern is there, which must be before what makes it has ended."""
    deadline = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert is_running(), f"it ended before {pattern} appeared"
        assert time.monotonic() < deadline, f"{pattern} did not appear"
        time.sleep(0.002)


def run_two(work: Callable[..., None], *arguments: Any) -> None:
    """Calls `work(0, *arguments)` and `work(1, *arguments)` side by side, and waits; an error of either is raised."""
    start_processes(work, arguments, nprocs=2, start_method=SERVER.get_start_method())
