"""A version of a run as the base of another workspace: what was learned goes on where the data's shape has changed.

The other workspace names the same codes by the same tokens (see `peso.semantic_ids.relearning`), so that backbone,
adapter and token rows are taken over as they are; where its last level has grown, rows of the new codes join them. Its
block 0 must be what the version has learned.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from peso.config import make_config
from peso.data.storage import Kind, read_facts
from peso.errors import WorkspaceError
from peso.files import atomic_directory, write_json
from peso.semantic_ids.encoding import RECORD
from peso.semantic_ids.item_tokenizer import load_item_tokenizer
from peso.training.base import BACKBONE, Base, read_base
from peso.training.finished import finished_run
from peso.training.grown import growth_of, write_grown
from peso.training.materials import Materials, load_materials
from peso.training.update_record import UPDATE_FILE

_WEIGHTS = "adapter_model.safetensors"
_ORIGINS: dict[str, dict[str, Kind]] = {"extends": {"semantic_ids": str}, "refresh": {"semantic_ids_before": str}}
"""Where the record of an encoding says what codes its own go on from."""


@dataclass(frozen=True, eq=False)
class Version:
    """What a run knew after a block.

    Attributes:
        run: the run's folder.
        block: the version's.
        materials: data and configuration of the run.
        base: its base.
    """

    run: Path
    block: int
    materials: Materials
    base: Base

    @property
    def adapter(self) -> Path:
        """Folder of the adapter."""
        return self.run / "adapters" / f"block_{self.block}"


def find_version(workspace: Path, run_id: str | None, block: int) -> Version:
    """A version that another workspace can take over.

    Args:
        workspace: of the run.
        run_id: a finished run; the one finished last by default.
        block: the version after this block.

    Raises:
        WorkspaceError: there is no such run or version, or it is no adapter of the configured shape (methods that keep
            past adapters, or train all weights).
    """
    run = finished_run(workspace, run_id)
    config = make_config(run / "config.toml")
    materials = load_materials(workspace, config)
    version = Version(run, block, materials, read_base(materials, workspace / "bases"))
    if not version.adapter.is_dir():
        raise WorkspaceError(f"run {run.name} has no version after block {block}.")
    if _shapes(version.adapter / _WEIGHTS) != _shapes(version.base.folder / "adapter" / _WEIGHTS):
        raise WorkspaceError(
            f"run {run.name} of method {config.method!r} keeps more than one adapter of rank {config.adapter.r}, which "
            "no new base can take over; use a run of frozen, single or peso."
        )
    return version


def carry_over(version: Version, target: Path) -> Path:
    """Writes a version as the base that the same configuration has in another workspace.

    Args:
        version: what to carry.
        target: a workspace with data, whose block 0 are the events up to the version's block.

    Returns:
        The new base's folder.

    Raises:
        WorkspaceError: the target's codes were neither extended nor refreshed from those of the version.
    """
    before, after = version.materials, load_materials(target, version.materials.config)
    if before.semantic_ids.fingerprint not in origins(target).values():
        raise WorkspaceError(
            f"the codes in {target} do not go on from those that run {version.run.name} has learned; nothing can be "
            "carried over."
        )
    old_sizes = before.semantic_ids.level_sizes
    folder = target / "bases" / after.base_id
    with atomic_directory(folder) as temporary:
        if old_sizes == after.semantic_ids.level_sizes:
            shutil.copytree(version.base.folder / BACKBONE, temporary / BACKBONE)
            shutil.copytree(version.adapter, temporary / "adapter")
        else:
            codebook = load_item_tokenizer(target / "data" / "semantic_ids").codebook
            write_grown(version.base, version.adapter, growth_of(codebook, old_sizes), temporary)
        (temporary / "adapter" / UPDATE_FILE).unlink(missing_ok=True)
        record = {
            "seconds": 0.0,
            "num_parameters": version.base.num_parameters,
            "epochs": [],
            "backbone_id": after.backbone_id,
            "config": after.config.base_part(),
            "carried_from": {
                "run_id": version.run.name,
                "block": version.block,
                "data_fingerprint": before.data_fingerprint,
            },
        }
        write_json(temporary / "base.json", record)
    return folder


def origins(workspace: Path) -> dict[str, str]:
    """Fingerprints of the codes that a workspace's go on from, by how: "extends" or "refresh"; empty for none.

    Raises:
        WorkspaceError: the record of the encoding is damaged.
    """
    path = workspace / "data" / "semantic_ids" / RECORD
    record = (
        read_facts(path, "record of the encoding", {f"{step}?": kind for step, kind in _ORIGINS.items()})
        if path.exists()
        else {}
    )
    return {step: record[step][name] for step, fields in _ORIGINS.items() if step in record for name in fields}


def _shapes(weights: Path) -> dict[str, list[int]]:
    """Names and shapes in a file of weights; empty where there is none."""
    if not weights.exists():
        return {}
    with safe_open(weights, framework="np") as stored:
        return {name: stored.get_slice(name).get_shape() for name in stored.keys()}
