"""One stage of training, epoch after epoch; the best epoch is kept.

The same loop trains the embedded backbone from scratch, the adapter on block 0, and every later update, so all of
them resume alike and log alike. An epoch's order and dropout depend on (seed, stage, epoch) only: a resumed stage
continues bit for bit.
"""

import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from peso.data.shuffling import in_another_order
from peso.lm.likelihood import CodeLikelihood
from peso.seeding import derive_seed
from peso.training.averaging import averaged, best_share, first_share
from peso.training.checkpoints import load_checkpoint, save_checkpoint
from peso.training.code_losses import mean_loss
from peso.training.epochs import EpochRecord, kept_epoch
from peso.training.optimisation import FlatOptimizer
from peso.training.processes import is_first, process_number
from peso.training.pulled_steps import PULLS_PER_LOG, STEPS_PER_PULL, PulledSteps
from peso.training.stage import Stage, batches_of_epoch
from peso.training.steps import training_step

log = logging.getLogger(__name__)

STEPS_PER_LOG = STEPS_PER_PULL * PULLS_PER_LOG
"""A penalty's share is measured at every 32nd step, as a pull's is: doing so costs as much as a cheap penalty."""


def train_stage(
    model: PreTrainedModel, likelihood: CodeLikelihood, stage: Stage, checkpoint: Path, until: int | None = None
) -> tuple[list[EpochRecord], int]:
    """Trains, keeping the epoch with the least validation loss, or without validation targets the last, in the model.

    With a share below 1 an epoch's validation loss, and what is kept of it, are those of the mean with where the stage
    starts; the next epoch goes on from where the epoch ended.

    Args:
        model: causal LM, plain or with an adapter injected, as the stage starts; left in eval mode with the best
            parameters.
        likelihood: the loss.
        stage: what to do.
        checkpoint: file of the state after each epoch; if it exists, training goes on from it. Left in place: the
            caller removes it once the stage's result is safe.
        until: stops after this many of the stage's epochs, at least 1, whose learning rates stay those of all; a later
            call goes on from there.

    Returns:
        The record of each epoch, and the selected epoch (1-based).

    Raises:
        TrainingError: a loss or a parameter is not finite; the checkpoint stays that of the epoch before.
    """
    # Another order changes no length, and so no batch.
    plan = [_batches(stage, epoch) for epoch in range(stage.epochs)]
    optimizer = FlatOptimizer(
        stage.parts,
        stage.learning_rates,
        stage.weight_decay,
        sum(map(len, plan)),
        stage.training.warmup_fraction,
        stage.undecayed,
    )
    starts = {name: part.snapshot() for name, part in stage.parts.items()} if stage.share != 1 else {}
    records: list[EpochRecord] = []
    best: dict[str, Tensor] = {}
    loaded = load_checkpoint(checkpoint, stage.key)
    if loaded is not None:
        records = [EpochRecord(**record) for record in loaded[0]["epochs"]]
        optimizer.load_state(loaded[1])
        best = {name: loaded[1][f"{name}.best"] for name in stage.parts}
        # Who gives `until` calls again after every few epochs.
        level = logging.INFO if until is None else logging.DEBUG
        log.log(level, "%s: continuing after epoch %d", stage.name, len(records))

    def loss_at(share: float) -> float:
        with averaged(stage.parts, starts, share):
            return mean_loss(model, likelihood, stage.builder, stage.valid_rows)

    if not len(stage.valid_rows):
        log.info("%s: no validation targets (no user has three events); the last epoch is kept", stage.name)
    for epoch in range(len(records), stage.epochs if until is None else until):
        started = time.perf_counter()
        torch.manual_seed(derive_seed(stage.seed, "dropout", stage.name, epoch) + process_number())
        if stage.training.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        shown = _shown_in(stage, epoch)
        train_loss, ratio = _train_epoch(model, likelihood, shown, optimizer, plan[epoch], epoch)
        valid_loss, share = None, first_share(stage.share)
        if len(stage.valid_rows):
            valid_loss = loss_at(share)
            stage.refuse_divergence(valid_loss, "the validation loss", epoch)
            if stage.share == "auto" and epoch + 1 == stage.epochs:
                share, valid_loss = best_share(loss_at, share, valid_loss)
        seconds = time.perf_counter() - started
        records.append(EpochRecord(stage.block, epoch + 1, train_loss, valid_loss, ratio, seconds, share))
        if kept_epoch(records) == epoch + 1:
            with averaged(stage.parts, starts, share):
                best = {name: part.snapshot() for name, part in stage.parts.items()}
        validated = "none" if valid_loss is None else f"{valid_loss:.3f} nats"
        log.info(
            "%s: epoch %d/%d, training loss %.3f, validation loss %s, %.0f targets/s",
            stage.name, epoch + 1, stage.epochs, train_loss, validated, shown.train_rows.num_targets.sum() / seconds,
        )  # fmt: skip
        state = optimizer.state() | {f"{name}.best": values for name, values in best.items()}
        if is_first():
            save_checkpoint(checkpoint, stage.key, {"epochs": [asdict(record) for record in records]}, state)

    for name, part in stage.parts.items():
        part.restore(best[name])
    model.eval()
    return records, kept_epoch(records)


def _shown_in(stage: Stage, epoch: int) -> Stage:
    """The stage as an epoch shows it, which is the same in every life of the stage and in every process."""
    seed = derive_seed(stage.seed, "shuffling", stage.name, epoch)
    shuffled = in_another_order(stage.builder.dataset, stage.train_rows.targets, stage.shuffled_share, seed)
    return replace(stage, builder=stage.builder.over(shuffled))


def _batches(stage: Stage, epoch: int) -> list[np.ndarray]:
    rows = stage.train_rows
    return batches_of_epoch(stage, stage.builder.row_lengths(rows), rows.num_targets, epoch)


def _train_epoch(
    model: PreTrainedModel,
    likelihood: CodeLikelihood,
    stage: Stage,
    optimizer: FlatOptimizer,
    batches: list[np.ndarray],
    epoch: int,
) -> tuple[float, float | None]:
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=model.device)
    ratios: list[Tensor] = []
    pulled = None if stage.pull is None else PulledSteps(optimizer, stage.pull)
    for number, chosen in enumerate(batches, start=1):
        is_last, is_logged = number == len(batches), number % STEPS_PER_LOG == 1
        loss, step_ratio = training_step(model, likelihood, stage, optimizer, chosen, pulled, is_last, is_logged)
        total += loss.double()
        ratios += [] if step_ratio is None else [step_ratio]
        if is_last or is_logged:  # reading the loss waits for the accelerator
            step = f", step {number} of {len(batches)}"
            stage.refuse_divergence(float(total), "the training loss", epoch, step)
    for part in stage.parts.values():
        stage.refuse_divergence(
            float(torch.linalg.vector_norm(part.data.detach(), torch.inf)), "the largest weight", epoch
        )
    ratio = float(torch.stack(ratios).mean()) if ratios else None
    return float(total) / int(stage.train_rows.num_targets.sum()), ratio
