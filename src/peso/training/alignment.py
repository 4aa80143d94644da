"""The optional first stage of an adapter on a language model: titles to semantic IDs, and back."""

import logging
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from peso.config import AlignmentConfig, TrainingConfig
from peso.lm.alignment import AlignmentText, alignment_losses
from peso.lm.batching import batches_of_similar_length
from peso.lm.parameters import FlatParameters
from peso.seeding import derive_seed
from peso.training.checkpoints import load_checkpoint, save_checkpoint
from peso.training.epochs import EpochRecord, refuse_divergence
from peso.training.optimisation import FlatOptimizer
from peso.training.processes import is_first, take_from_first, wait_for_all
from peso.training.steps import clip_gradient

log = logging.getLogger(__name__)

STAGE = "alignment"

_CHECKED_TEXTS = 512
"""Texts whose loss is measured after an epoch, without dropout."""


def align(
    model: PreTrainedModel,
    parts: dict[str, FlatParameters],
    texts: list[AlignmentText],
    pad_token_id: int,
    config: AlignmentConfig,
    training: TrainingConfig,
    seed: int,
    key: str,
    checkpoint: Path,
) -> list[EpochRecord]:
    """Trains on the texts; a stage that was killed goes on after its last epoch.

    It is short, so processes do not share it: each does all of it, and all go on from what the first learned.

    Args:
        model: causal LM with an adapter injected; left in eval mode.
        parts: what trains, by name.
        texts: what to learn.
        pad_token_id: fills rows.
        config: epochs, rate and batch.
        training: precision, warm-up, decay and clipping of the base.
        seed: the run's seed.
        key: of the stage, for its checkpoint.
        checkpoint: file of the state after each epoch.

    Returns:
        A record per epoch; losses are means over response tokens in nats, the validation loss that of the first texts.

    Raises:
        TrainingError: a loss is not finite.
    """
    lengths = np.array([len(text.tokens) for text in texts])
    plan = [
        batches_of_similar_length(
            lengths, np.ones_like(lengths), config.batch_texts, derive_seed(seed, "order", STAGE, epoch)
        )
        for epoch in range(config.epochs)
    ]
    rates = dict.fromkeys(parts, config.learning_rate)
    optimizer = FlatOptimizer(parts, rates, training.base_weight_decay, sum(map(len, plan)), training.warmup_fraction)
    records: list[EpochRecord] = []
    loaded = load_checkpoint(checkpoint, key)
    if loaded is not None:
        records = [EpochRecord(**record) for record in loaded[0]["epochs"]]
        optimizer.load_state(loaded[1])
    wait_for_all()
    for epoch in range(len(records), config.epochs):
        started = time.perf_counter()
        torch.manual_seed(derive_seed(seed, "dropout", STAGE, epoch))
        if training.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
        total, count = 0.0, 0
        for chosen in plan[epoch]:
            optimizer.zero_gradients()
            with torch.autocast(model.device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
                losses = alignment_losses(model, [texts[number] for number in chosen], pad_token_id)
            losses.mean().backward()
            clip_gradient(optimizer, training.max_gradient_norm)
            optimizer.step()
            total, count = total + float(losses.detach().sum()), count + len(losses)
        checked = _mean_loss(model, texts[:_CHECKED_TEXTS], pad_token_id, config.batch_texts)
        where = f"block 0, stage {STAGE}, epoch {epoch + 1} of {config.epochs}"
        for loss in (total, checked):
            refuse_divergence(loss, "the loss", where, {"alignment.learning_rate": config.learning_rate})
        seconds = time.perf_counter() - started
        records.append(EpochRecord(0, epoch + 1, total / count, checked, None, seconds))
        log.info("%s: epoch %d/%d, loss %.3f nats per token", STAGE, epoch + 1, config.epochs, checked)
        if is_first():
            save_checkpoint(checkpoint, key, {"epochs": [asdict(record) for record in records]}, optimizer.state())
    for part in parts.values():
        take_from_first(part.data)
    model.eval()
    return records


@torch.no_grad()
def _mean_loss(model: PreTrainedModel, texts: list[AlignmentText], pad_token_id: int, at_once: int) -> float:
    model.eval()
    pieces = [texts[start : start + at_once] for start in range(0, len(texts), at_once)]
    return float(torch.cat([alignment_losses(model, piece, pad_token_id) for piece in pieces]).mean())
