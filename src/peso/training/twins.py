"""Versions that need no training, because another run of the workspace has what they take.

Runs that agree on `Materials.update_id` carry the same on from block to block. They may differ in what they measure,
and in how far what recommends is ahead of that: v = a + s (u - a) and the a that its block started from are stored, so
any other w = a + t (u - a) = a + (t / s) (v - a) follows from the two.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file

from peso.lm.adapters import CARRIED, carried_of
from peso.methods.registry import build_method
from peso.training.averaging import served_share
from peso.training.materials import Materials
from peso.training.update_record import UPDATE_FILE, Update, read_update, record_update, update_id_of


def find_twin(materials: Materials, run: Path, block: int) -> Path | None:
    """The adapter folder of another run whose version of a block is the same, or tells what is.

    Args:
        materials: data and configuration of this run.
        run: its folder, beside those of others.
        block: which.

    Raises:
        WorkspaceError: the record of another run's adapter is damaged.
    """
    records = sorted(run.parent.glob(f"*/adapters/block_{block}/{UPDATE_FILE}"))
    alike = [record.parent for record in records if update_id_of(record.parent) == materials.update_id]
    same = [folder for folder in alike if (update := read_update(folder)).served_share == _wanted(materials, update)]
    if same:
        return same[0]
    # Stored in fewer bits, v is not quite what training went ahead from.
    return alike[0] if alike and materials.config.adapter.stored_precision == "float32" else None


def write_twin(folder: Path, twin: Path, before: Path, materials: Materials) -> None:
    """Fills an adapter folder with what another run's tells.

    Args:
        folder: an existing, empty directory.
        twin: as of `find_twin`.
        before: this run's adapter folder of the block before; not read where the versions are the same.
        materials: data and configuration of this run.
    """
    update = read_update(twin)
    wanted = _wanted(materials, update)
    if update.served_share == wanted:
        shutil.copytree(twin, folder, dirs_exist_ok=True)
        return
    carried, share = carried_of(twin), update.carried_share
    shutil.copytree(carried, folder, dirs_exist_ok=True)
    if wanted != share:
        shutil.copytree(carried, folder / CARRIED, ignore=shutil.ignore_patterns(UPDATE_FILE))
        start = load_file(carried_of(before) / SAFETENSORS_WEIGHTS_NAME)
        mean = load_file(carried / SAFETENSORS_WEIGHTS_NAME)
        ahead = {name: start[name].lerp(mean[name], wanted / share) for name in mean}
        save_file(ahead, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    record_update(folder, replace(update, served_share=wanted), materials.update_id)


def _wanted(materials: Materials, update: Update) -> float:
    """How far the version that recommends goes in this run."""
    return served_share(update.carried_share, build_method(materials.config).lead)
