"""One update: the adapter of block t - 1 becomes the adapter of block t."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from peso.files import hash_of_json
from peso.lm.adapters import save_adapter
from peso.lm.parameters import FlatParameters
from peso.methods.base import ContinualMethod
from peso.training.base import LORA, TOKEN_ROWS, adapter_parts, training_rows, validation_rows
from peso.training.materials import Materials, Reader
from peso.training.trainer import Stage, train_stage

UPDATE_FILE = "update.json"


@dataclass(frozen=True)
class Update:
    """What one update did.

    Attributes:
        block: the block trained on.
        train_seconds: training time; 0 for a method that does not update.
        adapter_bytes: size of the adapter's weights file.
        epochs: one row per epoch, with `selected`.
        movement: per group the distance travelled and the length of the anchor.
    """

    block: int
    train_seconds: float
    adapter_bytes: int
    epochs: list[dict[str, Any]]
    movement: list[dict[str, Any]]


def update_stage(
    materials: Materials,
    reader: Reader,
    parts: dict[str, FlatParameters],
    anchors: dict[str, Tensor],
    method: ContinualMethod,
    block: int,
) -> Stage:
    """What an update trains, on what, and what holds it back.

    Args:
        materials: data and configuration.
        reader: how the backbone reads items.
        parts: see `adapter_parts`.
        anchors: flat values of each part after block - 1.
        method: decides examples, penalty and pull.
        block: at least 1.
    """
    config, training = materials.config, materials.config.training
    lora = parts[LORA]
    distance = method.penalty(lora.groups(anchors[LORA]))
    pulls = {name: method.pull(part.groups(anchors[name])) for name, part in parts.items()}

    def penalty() -> Tensor | None:
        return None if distance is None else distance(lora.groups(lora.data))

    def pull(rates: dict[str, float]) -> None:
        for name, towards_anchor in pulls.items():
            if towards_anchor is not None:
                towards_anchor(parts[name].groups(parts[name].data.detach()), rates[name])

    return Stage(
        name=f"block_{block}",
        key=hash_of_json([materials.update_id, block]),
        block=block,
        parts=parts,
        builder=reader.builder,
        train_rows=training_rows(materials, method.examples(materials.dataset, block)),
        valid_rows=validation_rows(materials, block),
        epochs=training.epochs,
        learning_rates={LORA: training.learning_rate, TOKEN_ROWS: training.token_rows_learning_rate},
        batch_targets=training.batch_targets,
        weight_decay=training.weight_decay,
        training=training,
        seed=config.seed,
        penalised_part=LORA,
        penalty=penalty,
        pull=pull if any(pulls.values()) else None,
    )


def run_update(
    materials: Materials, reader: Reader, model: PeftModel, method: ContinualMethod, block: int, checkpoint: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Trains the adapter in `model` on a block, in place.

    Args:
        materials: data and configuration.
        reader: how the backbone reads items.
        model: holds the adapter after block - 1: where training starts, and the anchor.
        method: decides examples, penalty and pull.
        block: at least 1.
        checkpoint: file of the state after each epoch.

    Returns:
        The log of each epoch, and of each group's movement.
    """
    parts = adapter_parts(model)
    anchors = {name: part.snapshot() for name, part in parts.items()}
    stage = update_stage(materials, reader, parts, anchors, method, block)
    records, selected = train_stage(reader.model, reader.likelihood, stage, checkpoint)
    epochs = [asdict(record) | {"selected": record.epoch == selected} for record in records]
    movement = [entry for name, part in parts.items() for entry in _movement(block, part, anchors[name])]
    return epochs, movement


def write_update(folder: Path, model: PeftModel, update: Update, update_id: str) -> Update:
    """Fills an adapter folder; the record in it makes the folder reusable by runs of equal training.

    Args:
        folder: an existing, empty directory.
        model: the adapter to save.
        update: its record; `adapter_bytes` is filled in.
        update_id: what the adapters are the result of.
    """
    written = Update(**asdict(update) | {"adapter_bytes": save_adapter(model, folder)})
    record = asdict(written) | {"update_id": update_id}
    (folder / UPDATE_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return written


def _movement(block: int, part: FlatParameters, anchor: Tensor) -> list[dict[str, Any]]:
    rows = []
    for stack in part.stacks:
        anchor_GN = stack.of(anchor)
        distances = torch.linalg.vector_norm(stack.of(part.snapshot()) - anchor_GN, dim=1).tolist()
        norms = torch.linalg.vector_norm(anchor_GN, dim=1).tolist()
        rows += [
            {"block": block, "group": group, "distance": distance, "anchor_norm": norm}
            for group, distance, norm in zip(stack.names, distances, norms, strict=True)
        ]
    return rows
