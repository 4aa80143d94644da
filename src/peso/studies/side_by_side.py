"""Runs of a study, in turn, or side by side in processes of their own.

A small backbone gains little from a second thread: side by side, runs of one core each leave less of a machine idle.
Bases are shared as ever: a run that needs one which another run is training waits for it.
"""

import logging
import multiprocessing
import os
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from logging.handlers import QueueHandler, QueueListener
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from peso.config import RunConfig
from peso.errors import WorkspaceError
from peso.training.stream import run_stream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        name: what its lines in the log begin with.
        workspace: with data.
        config: complete.
    """

    name: str
    workspace: Path
    config: RunConfig


def run_in_turn(jobs: Sequence[Job]) -> list[Path]:
    """Runs jobs one after the other; otherwise like `run_side_by_side`."""
    folders = []
    for number, job in enumerate(jobs, start=1):
        log.info("run %d of %d: %s", number, len(jobs), job.name)
        folders.append(run_stream(job.workspace, job.config, resume=True))
    return folders


def run_side_by_side(jobs: Sequence[Job], num_processes: int) -> list[Path]:
    """Runs jobs, some at a time; finished ones are reused, interrupted ones continued.

    Each process computes with its share of the machine's cores. After an error no further run begins.

    Args:
        jobs: begun in `spread_over_bases`' order; equal ones are run once.
        num_processes: runs at a time, at least 2.

    Returns:
        The folder of each job's run.

    Raises:
        PesoError: the data, a configuration or a run is not usable, or a process was killed; what is finished by then
            stays.
    """
    waiting = list({_key(job): job for job in spread_over_bases(jobs)}.items())[::-1]
    context = multiprocessing.get_context("spawn")
    lines: Queue[logging.LogRecord] = context.Queue()
    threads = max(1, torch.get_num_threads() // num_processes)
    setting = (lines, threads, logging.getLogger("peso").level)
    running: dict[Future[Path], str] = {}
    folders: dict[str, Path] = {}
    with _listening(lines), ProcessPoolExecutor(num_processes, context, _prepare, setting) as pool:
        while waiting or running:
            # No more than can begin at once: what a pool has taken on, it ends.
            while waiting and len(running) < num_processes:
                key, job = waiting.pop()
                running[pool.submit(_run, job)] = key
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                folders[running.pop(future)] = _folder_of(future)
    return [folders[_key(job)] for job in jobs]


def spread_over_bases(jobs: Sequence[Job]) -> list[Job]:
    """Jobs in an order in which few that are side by side wait for the same base: first one of each world and seed."""
    of_base: Counter[tuple[Path, int]] = Counter()
    ranks = []
    for job in jobs:
        base = (job.workspace, job.config.seed)
        ranks.append(of_base[base])
        of_base[base] += 1
    return [jobs[place] for place in sorted(range(len(jobs)), key=ranks.__getitem__)]


def _key(job: Job) -> str:
    return f"{job.workspace} {job.config.model_dump_json()}"


def _folder_of(future: Future[Path]) -> Path:
    try:
        return future.result()
    except BrokenProcessPool:
        raise WorkspaceError(
            "a run's process was killed, perhaps for want of memory; try again with fewer --jobs: finished runs stay."
        ) from None
    except BaseException:
        log.info("a run failed; those under way end, no further one begins")
        raise


def _run(job: Job) -> Path:
    _Prefix.name = job.name
    return run_stream(job.workspace, job.config, resume=True)


class _Prefix(logging.Filter):
    """Puts the name of the process's job in front of its lines."""

    name = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = f"[{_Prefix.name}] {record.getMessage()}"
        record.args = ()
        return True


def _prepare(lines: "Queue[Any]", threads: int, level: int) -> None:
    """What a process does before its first job."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", FutureWarning)
    disable_progress_bar()
    handler = QueueHandler(lines)
    handler.addFilter(_Prefix())
    logging.getLogger().addHandler(handler)
    logging.getLogger("peso").setLevel(level)


def _end_with_parent() -> None:
    """A study that is killed leaves no process behind: their runs would be taken, and the cores busy."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a pool's process has one"
    parent.join()
    os._exit(1)


@contextmanager
def _listening(lines: "Queue[Any]") -> Iterator[None]:
    """Hands the processes' lines to this one's handlers."""
    listener = QueueListener(lines, *logging.getLogger().handlers)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
