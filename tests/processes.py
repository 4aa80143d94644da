"""Processes of tests, born with the libraries imported.

Importing torch, transformers and peft takes longer than most of what tests do in a process of its own: a server that
has imported them, and done nothing else, forks a process for each.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import start_processes

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["peso.studies.registry"])


def run_two(work: Callable[..., None], *arguments: Any) -> None:
    """Calls `work(0, *arguments)` and `work(1, *arguments)` side by side, and waits; an error of either is raised."""
    start_processes(work, arguments, nprocs=2, start_method=SERVER.get_start_method())
