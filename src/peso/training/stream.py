"""A run: block after block, update, measure, and keep what was learned.

A run's folder grows in whole pieces: `adapters/block_t/` once block t is trained, `measured/block_t/` once it is
measured, and at the end `result.json` with the tables beside it. A killed run continues after its last whole piece
(inside a block: after its last epoch), and ends with the same numbers.
"""

import logging
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from peso.config import RunConfig, dump_config
from peso.errors import PesoError, WorkspaceError
from peso.files import remove_leftovers, write_text
from peso.lm.quantisation import check_quantisation
from peso.methods.registry import build_method
from peso.training.base import BASE_BLOCK, Base, load_state
from peso.training.base_training import prepare_base
from peso.training.finished import RESULT
from peso.training.materials import Materials, Reader, load_materials
from peso.training.measure import Measurement, measure_in_block, measure_next_block, memory_after
from peso.training.outcome import MEASURED, write_measurements, write_outcome
from peso.training.processes import (
    check_processes,
    is_first,
    locked_by_first,
    num_processes,
    wait_for_all,
    written_by_first,
)
from peso.training.twins import find_twin, write_twin
from peso.training.update import run_update, write_update

log = logging.getLogger(__name__)


def run_stream(workspace: Path, config: RunConfig, resume: bool = False) -> Path:
    """Runs one method over every block of a workspace.

    Args:
        workspace: a folder that `peso import` or `peso simulate` filled.
        config: everything that decides the outcome.
        resume: continue an interrupted run, or return a finished one.

    Returns:
        The run's folder, with `result.json`.

    Raises:
        ConfigError: shards are wanted in one process, or few bits without CUDA.
        InstallationError: few bits are wanted without the library for them.
        WorkspaceError: no data, the run exists and `resume` is false, or another process is at it.
    """
    check_processes(config, num_processes())
    check_quantisation(config.backbone.quantisation)
    materials = load_materials(workspace, config)
    folder = workspace / "runs" / materials.run_id
    with _claimed(folder):
        is_finished, is_begun = (folder / RESULT).exists(), folder.exists()
        wait_for_all()
        if is_finished and resume:
            shutil.rmtree(folder / MEASURED, ignore_errors=True)  # a kill may have come after the result
            return folder
        if not resume:
            refuse_again(folder, is_finished, is_begun)
        with _removed_if_refused(folder):
            if is_first():
                remove_leftovers(folder)
                for part in ("adapters", MEASURED):
                    (folder / part).mkdir(parents=True, exist_ok=True)
                    remove_leftovers(folder / part)
                write_text(folder / "config.toml", dump_config(config))
            base = prepare_base(materials, workspace / "bases")
            _run_blocks(materials, base, folder)
        if is_first():
            write_outcome(materials, base, folder, _peak_memory_bytes())
        wait_for_all()
    return folder


def refuse_again(folder: Path, is_finished: bool, is_begun: bool) -> None:
    """A run is not begun twice by mistake.

    Raises:
        WorkspaceError: it is finished or begun.
    """
    if is_finished:
        raise WorkspaceError(f"run {folder.name} is finished already; read {folder / RESULT}, or change the seed.")
    if is_begun:
        raise WorkspaceError(f"run {folder.name} was interrupted; add --resume to go on where it stopped.")


def _run_blocks(materials: Materials, base: Base, folder: Path) -> None:
    method = build_method(materials.config)
    adapters = folder / "adapters"
    for block in range(materials.dataset.num_blocks):
        adapter, measured = adapters / f"block_{block}", folder / MEASURED / f"block_{block}"
        if not adapter.exists():
            twin = find_twin(materials, folder, block)
            checkpoint = folder / f"checkpoint_block_{block}.safetensors"
            with written_by_first(adapter) as temporary:
                if twin is None:
                    trained = run_update(materials, base, method, adapters, block, checkpoint)
                    if temporary is not None:
                        write_update(temporary, trained, materials)
                elif temporary is not None:
                    write_twin(temporary, twin, adapters / f"block_{block - 1}", materials)
        for leftover in folder.glob(f"checkpoint_block_{block}*"):
            leftover.unlink(missing_ok=True)
        if not measured.exists():
            _, reader = load_state(materials, base, adapter)
            measurements = list(_measurements(materials, reader, block))
            with written_by_first(measured) as temporary:
                if temporary is not None:
                    write_measurements(temporary, measurements)


def _measurements(materials: Materials, reader: Reader, block: int) -> Iterator[Measurement]:
    is_followed = block + 1 < materials.dataset.num_blocks and materials.config.evaluation.next_block != "off"
    if block == BASE_BLOCK and not is_followed:
        return
    memory = memory_after(materials, reader, block)
    if block > BASE_BLOCK:
        measurement = measure_in_block(materials, reader, memory, block)
        ranks = measurement.targets["rank"]
        log.info("block %d: %d of %d test targets in the first 10", block, ranks.count(), len(ranks))
        yield measurement
    if is_followed:
        yield measure_next_block(materials, reader, memory, block)


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_by_first(lock, timeout_seconds=0))
        except Timeout:
            raise WorkspaceError(f"run {folder.name} is being written by another run; wait for it to end.") from None
        yield


@contextmanager
def _removed_if_refused(folder: Path) -> Iterator[None]:
    """A run that cannot be as it is wanted leaves nothing, unless it holds an adapter already."""
    try:
        yield
    except PesoError:
        if is_first() and not any((folder / "adapters").glob("block_*")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
