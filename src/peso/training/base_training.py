"""Finds or trains a base.

A base of another adapter on an equal backbone takes the backbone from there and trains the adapter only.
"""

import logging
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peso.data.examples import targets_of_block
from peso.files import hash_of_json, remove_leftovers, write_json
from peso.lm.adapters import attach_adapter, load_adapter, save_adapter
from peso.lm.alignment import alignment_texts
from peso.lm.backbone import EMBEDDED, build_backbone, load_tokenizer, load_weights, save_backbone
from peso.lm.device import make_ready
from peso.lm.parameters import FlatParameters
from peso.lm.sharding import shard_frozen
from peso.training.alignment import STAGE as ALIGNMENT
from peso.training.alignment import align
from peso.training.backbone_check import check_backbone
from peso.training.base import (
    BACKBONE,
    BASE_BLOCK,
    Base,
    adapter_parts,
    own_memory,
    read_base,
    read_base_record,
    training_rows,
    validation_rows,
)
from peso.training.epochs import EpochRecord
from peso.training.importing import FRESH, imported_adapter
from peso.training.materials import Materials, Reader, build_reader
from peso.training.processes import is_first, locked_by_first, shares_backbone, wait_for_all, written_by_first
from peso.training.stage import Stage, tokens_of_a_pass
from peso.training.trainer import train_stage

log = logging.getLogger(__name__)


def prepare_base(materials: Materials, bases: Path) -> Base:
    """Finds or trains the base of a configuration; an interrupted one continues from its last epoch.

    Args:
        materials: data and configuration.
        bases: folder of all bases; runs side by side wait for each other here.
    """
    folder = bases / materials.base_id
    bases.mkdir(parents=True, exist_ok=True)
    with locked_by_first(FileLock(bases / f"{materials.backbone_id}.lock")):
        was_reused = folder.exists()
        unfinished = bases / f"unfinished-{materials.base_id}"
        wait_for_all()
        if not was_reused:
            if is_first():
                remove_leftovers(bases, materials.base_id)
            _train_base(materials, folder, unfinished)
        shutil.rmtree(unfinished, ignore_errors=True)
    return read_base(materials, bases, was_reused)


def _train_base(materials: Materials, folder: Path, unfinished: Path) -> None:
    config = materials.config
    started = time.perf_counter()
    epochs: list[dict[str, Any]] = []
    model, tokenizer, finished = _trained_backbone(materials, folder.parent)
    reader = build_reader(materials, model, tokenizer)
    if config.backbone.source != EMBEDDED:
        check_backbone(materials, reader)
    if finished is not None:
        epochs += finished
    elif config.backbone.source == EMBEDDED:
        parts = {BACKBONE: FlatParameters(model.named_parameters())}
        stage = _base_stage(
            materials, reader, BACKBONE, parts, config.backbone.epochs, config.backbone.learning_rate,
            config.backbone.weight_decay, "backbone.learning_rate",
        )  # fmt: skip
        records, selected = train_stage(model, reader.likelihood, stage, unfinished / "backbone.safetensors")
        epochs += _as_rows(records, selected, BACKBONE)
        own_memory(model)
    num_parameters = model.num_parameters()
    with written_by_first(folder) as temporary:
        if temporary is not None:
            save_backbone(model, tokenizer, temporary / BACKBONE)
        if config.adapter.start == FRESH:
            adapted = attach_adapter(model, config.adapter, reader.builder.vocabulary.all_token_ids, config.seed)
        else:
            start = imported_adapter(folder.parent.parent, config.adapter.start)
            adapted = load_adapter(model, start, is_trainable=True)
        if shares_backbone(config):
            shard_frozen(model, config.training.kernels)
        if config.alignment.epochs:
            epochs += _aligned(materials, reader, tokenizer, adapter_parts(adapted), unfinished)
        if config.training.base_epochs:
            training = config.training
            stage = _base_stage(
                materials, reader, "adapter", adapter_parts(adapted), training.base_epochs,
                training.base_learning_rate, training.base_weight_decay, "training.base_learning_rate",
            )  # fmt: skip
            records, selected = train_stage(model, reader.likelihood, stage, unfinished / "adapter.safetensors")
            epochs += _as_rows(records, selected, "adapter")
        if temporary is None:
            return
        (temporary / "adapter").mkdir()
        save_adapter(adapted, temporary / "adapter", config.adapter.stored_precision)
        # A resumed base counts the epochs of all its lives, an uninterrupted one the clock, which is a little more.
        seconds = max(time.perf_counter() - started, sum(epoch["seconds"] for epoch in epochs))
        record = {
            "seconds": seconds,
            "num_parameters": num_parameters,
            "epochs": epochs,
            "backbone_id": materials.backbone_id,
            "config": config.base_part(),
        }
        write_json(temporary / "base.json", record)


def _aligned(
    materials: Materials,
    reader: Reader,
    tokenizer: PreTrainedTokenizerBase,
    parts: dict[str, FlatParameters],
    unfinished: Path,
) -> list[dict[str, Any]]:
    """Trains the adapter on titles and semantic IDs; the log."""
    config, vocabulary = materials.config, reader.builder.vocabulary
    texts = alignment_texts(tokenizer, vocabulary, materials.known_titles)
    records = align(
        reader.model, parts, texts, vocabulary.pad_token_id, config.alignment, config.training, config.seed,
        hash_of_json([materials.base_id, ALIGNMENT]), unfinished / "alignment.safetensors",
    )  # fmt: skip
    return _as_rows(records, len(records), ALIGNMENT)


def _trained_backbone(
    materials: Materials, bases: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[dict[str, Any]] | None]:
    """The backbone and its tokenizer, with its training log if another base had trained it already."""
    config = materials.config
    for file in sorted(bases.glob("*/base.json")) if config.backbone.source == EMBEDDED else []:
        record = read_base_record(file.parent)
        if record.get("backbone_id") == materials.backbone_id:
            log.info("the backbone of base %s is reused", file.parent.name)
            model, tokenizer = load_weights(file.parent / BACKBONE), load_tokenizer(file.parent / BACKBONE)
            model = make_ready(model, kernels=config.training.kernels)
            return model, tokenizer, [epoch for epoch in record["epochs"] if epoch["stage"] == BACKBONE]
    model, tokenizer = build_backbone(
        config.backbone, materials.semantic_ids.level_sizes, config.seed, materials.known_titles
    )
    return make_ready(model, shares_backbone(config), config.training.kernels), tokenizer, None


def _base_stage(
    materials: Materials,
    reader: Reader,
    name: str,
    parts: dict[str, FlatParameters],
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    rate_key: str,
) -> Stage:
    return Stage(
        name=f"base_{name}",
        key=hash_of_json([materials.base_id, name]),
        block=BASE_BLOCK,
        parts=parts,
        builder=reader.builder,
        train_rows=training_rows(materials, targets_of_block(materials.dataset, BASE_BLOCK, "train")),
        valid_rows=validation_rows(materials, BASE_BLOCK),
        epochs=epochs,
        learning_rates=dict.fromkeys(parts, learning_rate),
        batch_targets=materials.config.training.base_batch_targets,
        weight_decay=weight_decay,
        training=materials.config.training,
        seed=materials.config.seed,
        shuffled_share=materials.shuffled_share,
        tokens_of_a_pass=tokens_of_a_pass(reader.model, materials.config.training),
        rate_keys=dict.fromkeys(parts, rate_key),
    )


def _as_rows(records: list[EpochRecord], selected: int, stage: str) -> list[dict[str, Any]]:
    return [asdict(record) | {"stage": stage, "selected": record.epoch == selected} for record in records]
