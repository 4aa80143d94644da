"""The base: a backbone that knows block 0, and the adapter state v_0 that every method starts from.

A base is stored under the hash of everything that decides it, so a second run of equal configuration reuses it.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from peso.data.examples import targets_of_block
from peso.data.storage import Kind, read_facts
from peso.errors import WorkspaceError
from peso.lm.adapters import load_adapter, lora_parameters, token_row_parameters
from peso.lm.backbone import load_tokenizer, load_weights
from peso.lm.device import make_ready
from peso.lm.parameters import FlatParameters
from peso.lm.past_adapters import magnitude_parameters
from peso.lm.rows import Rows, many_targets_per_row, one_target_per_row
from peso.lm.sharding import shard_frozen
from peso.training.materials import Materials, Reader, build_reader
from peso.training.processes import shares_backbone

log = logging.getLogger(__name__)

LORA: Final = "lora"
TOKEN_ROWS: Final = "token_rows"
MAGNITUDES: Final = "magnitudes"
BACKBONE: Final = "backbone"
"""Names of the parts that a stage trains; those that an anchor holds are `peso.methods.base.Part`."""

BASE_BLOCK = 0

_FACTS: dict[str, Kind] = {
    "seconds": float,
    "num_parameters": int,
    "epochs": [{"stage": str}],
    "backbone_id?": str,
    "carried_from?": dict,
}
"""What `base.json` must hold."""


@dataclass(frozen=True)
class Base:
    """A finished base.

    Attributes:
        id: its content address.
        folder: holds `backbone/`, `adapter/` and `base.json`.
        was_reused: whether an earlier run had made it.
        seconds: training time, when it was made.
        num_parameters: of the backbone.
        epochs: training log, backbone and adapter stages.
        carried_from: run, block and data of the version that it was taken from; None where it was trained here.
    """

    id: str
    folder: Path
    was_reused: bool
    seconds: float
    num_parameters: int
    epochs: list[dict[str, Any]]
    carried_from: dict[str, Any] | None = None


def read_base(materials: Materials, bases: Path, was_reused: bool = True) -> Base:
    """The facts of a finished base.

    Raises:
        WorkspaceError: it is missing or damaged.
    """
    folder = bases / materials.base_id
    record = read_base_record(folder)
    return Base(
        materials.base_id, folder, was_reused, record["seconds"], record["num_parameters"], record["epochs"],
        record.get("carried_from"),
    )  # fmt: skip


def read_base_record(folder: Path) -> dict[str, Any]:
    """What `base.json` says.

    Raises:
        WorkspaceError: it is missing or damaged.
    """
    if not folder.is_dir():
        raise WorkspaceError(
            f"base checkpoint: {folder} does not exist; it was removed, or the run that needs it was trained with "
            "other settings or by another version of peso: train the run again."
        )
    cure = f"restore it, or remove {folder} to train the base again"
    return read_facts(folder / "base.json", "base checkpoint", _FACTS, cure)


def load_base(materials: Materials, base: Base, adapter: Path | None = None) -> tuple[PeftModel, Reader]:
    """The base's backbone with an adapter on it, ready to train.

    Args:
        materials: data and configuration.
        base: a finished base.
        adapter: folder of the adapter; v_0 by default.
    """
    in_shards = shares_backbone(materials.config)
    model, reader = _backbone(materials, base, base.folder / BACKBONE, in_shards)
    adapted = load_adapter(model, adapter or base.folder / "adapter", is_trainable=True)
    if in_shards:
        shard_frozen(model, materials.config.training.kernels)
    return adapted, reader


def load_state(
    materials: Materials, base: Base, folder: Path | None = None
) -> tuple[PreTrainedModel | PeftModel, Reader]:
    """The model after a block, whatever the method keeps of it.

    Args:
        materials: data and configuration.
        base: a finished base.
        folder: an adapter, or a whole backbone if `save_state` wrote it; v_0 by default.
    """
    if folder is None or not (folder / BACKBONE).exists():
        return load_base(materials, base, folder)
    return _backbone(materials, base, folder / BACKBONE)


def save_state(model: PreTrainedModel, folder: Path) -> int:
    """Writes a backbone whose own weights have changed, in the standard layout.

    Returns:
        Size of its weights in bytes.
    """
    model.save_pretrained(folder / BACKBONE)
    return sum(file.stat().st_size for file in (folder / BACKBONE).glob("*.safetensors"))


def _backbone(
    materials: Materials, base: Base, folder: Path, awaits_shards: bool = False
) -> tuple[PreTrainedModel, Reader]:
    model = make_ready(load_weights(folder), awaits_shards, materials.config.training.kernels)
    return model, build_reader(materials, model, load_tokenizer(base.folder / BACKBONE))


def adapter_parts(model: PeftModel, trains_a: bool = True) -> dict[str, FlatParameters]:
    """What an update of the adapter trains: A and B, the semantic-ID tokens' rows, and magnitudes if there are any.

    Args:
        model: holds the adapter.
        trains_a: whether A trains too; what does not is left without a gradient.
    """
    for name, parameter in lora_parameters(model):
        parameter.requires_grad_(trains_a or name.endswith("lora_B"))
    parts = {
        LORA: FlatParameters(lora_parameters(model)),
        TOKEN_ROWS: FlatParameters(token_row_parameters(model)),
    }
    magnitudes = magnitude_parameters(model)
    return parts | ({MAGNITUDES: FlatParameters(magnitudes)} if magnitudes else {})


def training_rows(materials: Materials, targets: Any) -> Rows:
    """Training targets as rows, as many targets in a row as the configuration says."""
    config = materials.config
    return many_targets_per_row(materials.dataset, targets, config.max_history, config.training.targets_per_row)


def validation_rows(materials: Materials, block: int) -> Rows:
    """Validation targets, each with exactly its own history."""
    targets = targets_of_block(materials.dataset, block, "valid")
    return one_target_per_row(materials.dataset, targets, materials.config.max_history)


def own_memory(model: nn.Module) -> None:
    """Gives every weight storage of its own again, as the standard writers expect."""
    for parameter in model.parameters():
        parameter.data = parameter.detach().clone()
        parameter.grad = None
