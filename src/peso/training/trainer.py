"""One stage of training: some flat parameters, some targets, a number of epochs; the best epoch is kept.

The same loop trains the embedded backbone from scratch, the adapter on block 0, and every later update, so all of
them resume alike and log alike. An epoch's order and dropout depend on (seed, stage, epoch) only: a resumed stage
continues bit for bit.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from peso.config import TrainingConfig
from peso.lm.batching import batches_of_similar_length, passes_of_step
from peso.lm.likelihood import CodeLikelihood
from peso.lm.parameters import FlatParameters
from peso.lm.rows import Rows
from peso.lm.sequences import SequenceBuilder
from peso.lm.sharding import is_sharded
from peso.seeding import derive_seed
from peso.training.checkpoints import load_checkpoint, save_checkpoint
from peso.training.code_losses import mean_loss
from peso.training.epochs import EpochRecord, kept_epoch, refuse_divergence
from peso.training.optimisation import FlatOptimizer
from peso.training.processes import add_over_processes, is_first, num_processes, own_passes, process_number, share_of
from peso.training.pulled_steps import PULLS_PER_LOG, STEPS_PER_PULL, Pull, PulledSteps

log = logging.getLogger(__name__)

AddPenalty = Callable[[], None]
"""Adds the gradient of a penalty at the current parameters to one part's gradient."""

STEPS_PER_LOG = STEPS_PER_PULL * PULLS_PER_LOG
"""A penalty's share is measured at every 32nd step, as a pull's is: doing so costs as much as a cheap penalty."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What to train, on what, and how.

    Attributes:
        name: names the stage in seeds and logs, such as "block_2".
        key: hash of everything that decides the stage; a checkpoint of another key is refused.
        block: the block trained on.
        parts: flat parameters by name; all else is frozen.
        builder: writes rows as tokens.
        train_rows: training targets.
        valid_rows: validation targets.
        epochs: passes over the training targets.
        learning_rates: peak rate of each part.
        batch_targets: targets per optimizer step.
        weight_decay: decoupled decay.
        training: passes, precision, warm-up, clipping.
        seed: the run's seed.
        penalised_part: the part whose gradient the penalty adds to.
        add_penalty: does so, after the gradient of the cross-entropy was clipped; None where there is no penalty.
        pull: follows the optimizer's steps (see `PulledSteps`).
        tokens_of_a_pass: what a pass costs besides its tokens, in tokens: batches are cut into passes where padding
            costs more. 0 never cuts.
        rate_keys: the key of the configuration that sets each part's rate, for who must lower it.
    """

    name: str
    key: str
    block: int
    parts: dict[str, FlatParameters]
    builder: SequenceBuilder
    train_rows: Rows
    valid_rows: Rows
    epochs: int
    learning_rates: dict[str, float]
    batch_targets: int
    weight_decay: float
    training: TrainingConfig
    seed: int
    penalised_part: str = ""
    add_penalty: AddPenalty | None = None
    pull: Pull | None = None
    tokens_of_a_pass: int = 0
    rate_keys: Mapping[str, str] = field(default_factory=dict)

    def refuse_divergence(self, value: float, what: str, epoch: int, step: str = "") -> None:
        """See `peso.training.epochs.refuse_divergence`."""
        rates = {self.rate_keys.get(part, part): rate for part, rate in self.learning_rates.items()}
        where = f"block {self.block}, stage {self.name}, epoch {epoch + 1} of {self.epochs}{step}"
        refuse_divergence(value, what, where, rates)


TOKENS_OF_A_PASS = 320
"""What a pass over the embedded backbone costs on two cores of a CPU besides its tokens, in tokens; measured."""


def tokens_of_a_pass(model: PreTrainedModel, training: TrainingConfig) -> int:
    """What `Stage.tokens_of_a_pass` should be.

    Args:
        model: ready to train; one in shards makes as many passes in every process, and an accelerator likes few.
        training: lines that rows share have no padding to save.
    """
    is_cut = model.device.type == "cpu" and not is_sharded(model) and not training.line_tokens
    return TOKENS_OF_A_PASS if is_cut else 0


def train_stage(
    model: PreTrainedModel, likelihood: CodeLikelihood, stage: Stage, checkpoint: Path, until: int | None = None
) -> tuple[list[EpochRecord], int]:
    """Trains, keeping the epoch with the least validation loss, or without validation targets the last, in the model.

    Args:
        model: causal LM, plain or with an adapter injected; left in eval mode with the best parameters.
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
    lengths, weights = stage.builder.row_lengths(stage.train_rows), stage.train_rows.num_targets
    plan = [batches_of_epoch(stage, lengths, weights, epoch) for epoch in range(stage.epochs)]
    optimizer = FlatOptimizer(
        stage.parts, stage.learning_rates, stage.weight_decay, sum(map(len, plan)), stage.training.warmup_fraction
    )
    records: list[EpochRecord] = []
    best: dict[str, Tensor] = {}
    loaded = load_checkpoint(checkpoint, stage.key)
    if loaded is not None:
        records = [EpochRecord(**record) for record in loaded[0]["epochs"]]
        optimizer.load_state(loaded[1])
        best = {name: loaded[1][f"{name}.best"] for name in stage.parts}
        log.info("%s: continuing after epoch %d", stage.name, len(records))

    if not len(stage.valid_rows):
        log.info("%s: no validation targets (no user has three events); the last epoch is kept", stage.name)
    for epoch in range(len(records), stage.epochs if until is None else until):
        started = time.perf_counter()
        torch.manual_seed(derive_seed(stage.seed, "dropout", stage.name, epoch) + process_number())
        if stage.training.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        train_loss, ratio = _train_epoch(model, likelihood, stage, optimizer, plan[epoch], epoch)
        valid_loss = None
        if len(stage.valid_rows):
            valid_loss = mean_loss(model, likelihood, stage.builder, stage.valid_rows)
            stage.refuse_divergence(valid_loss, "the validation loss", epoch)
        seconds = time.perf_counter() - started
        records.append(EpochRecord(stage.block, epoch + 1, train_loss, valid_loss, ratio, seconds))
        if kept_epoch(records) == epoch + 1:
            best = {name: part.snapshot() for name, part in stage.parts.items()}
        validated = "none" if valid_loss is None else f"{valid_loss:.3f} nats"
        log.info(
            "%s: epoch %d/%d, training loss %.3f, validation loss %s, %.0f targets/s",
            stage.name, epoch + 1, stage.epochs, train_loss, validated, weights.sum() / seconds,
        )  # fmt: skip
        state = optimizer.state() | {f"{name}.best": values for name, values in best.items()}
        if is_first():
            save_checkpoint(checkpoint, stage.key, {"epochs": [asdict(record) for record in records]}, state)

    for name, part in stage.parts.items():
        part.restore(best[name])
    model.eval()
    return records, kept_epoch(records)


def batches_of_epoch(stage: Stage, lengths: np.ndarray, weights: np.ndarray, epoch: int) -> list[np.ndarray]:
    """Row numbers of each batch of an epoch.

    Args:
        stage: names the order.
        lengths: int64 [R], tokens of each training row.
        weights: int64 [R], targets of each.
        epoch: 0-based.
    """
    seed = derive_seed(stage.seed, "order", stage.name, epoch)
    return batches_of_similar_length(lengths, weights, stage.batch_targets, seed)


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


def training_step(
    model: PreTrainedModel,
    likelihood: CodeLikelihood,
    stage: Stage,
    optimizer: FlatOptimizer,
    chosen: np.ndarray,
    pulled: PulledSteps | None = None,
    is_last: bool = False,
    is_logged: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """One optimizer step on some training rows.

    Args:
        model: in training mode.
        likelihood: the loss.
        stage: rows, builder, penalty.
        optimizer: over the stage's parts.
        chosen: row numbers, int64 [B].
        pulled: takes the steps where they are pulled.
        is_last: whether the epoch ends.
        is_logged: whether the penalty's share is measured.

    Returns:
        The summed cross-entropy in nats, and the gradient ratio of `EpochRecord` where it is measured; scalars without
        gradient.
    """
    optimizer.zero_gradients()
    loss = add_gradient(model, likelihood, stage, chosen)
    clip_gradient(optimizer, stage.training.max_gradient_norm)
    ratio = None
    if stage.add_penalty is not None:
        ratio = add_penalty_gradient(stage.parts[stage.penalised_part], stage.add_penalty, is_logged)
    if pulled is None:
        optimizer.step()
    else:
        ratio = pulled.step(is_last)
    return loss, ratio


def add_gradient(model: PreTrainedModel, likelihood: CodeLikelihood, stage: Stage, chosen: np.ndarray) -> Tensor:
    """Adds the gradient of the mean cross-entropy over some training rows' tokens to the parts' gradients.

    Each process takes its share of the rows; the sums are over all of them. Where the backbone is in shards, all make
    as many passes, forward and back.

    Args:
        model: in training mode.
        likelihood: the loss.
        stage: rows, builder, and how many passes share the work.
        chosen: row numbers, int64 [B].

    Returns:
        The summed loss of all targets in nats, a scalar without gradient.
    """
    training = stage.training
    builder = stage.builder.with_end() if training.end_token else stage.builder
    num_tokens = builder.vocabulary.num_levels + training.end_token
    num_losses = int(stage.train_rows.num_targets[chosen].sum()) * num_tokens
    loss_sum = torch.zeros((), device=model.device)
    shares = [_pieces(stage, share_of(chosen, process)) for process in range(num_processes())]
    for piece, counts in own_passes(shares, is_sharded(model)):
        batch = builder.batch(stage.train_rows.take(piece), training.line_tokens).to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            loss = likelihood.negative_log_likelihood(model, batch, training.temperature).sum()
        (loss * counts / num_losses).backward()
        loss_sum += loss.detach() * counts
    for part in stage.parts.values():
        add_over_processes(part.gradient)
    add_over_processes(loss_sum)
    return loss_sum


def _pieces(stage: Stage, chosen: np.ndarray) -> list[np.ndarray]:
    """Training rows of one process as those of its passes."""
    if not len(chosen):
        return []
    rows = stage.train_rows.take(chosen)
    lengths = stage.builder.row_lengths(rows)
    passes = passes_of_step(lengths, rows.num_targets, stage.training.passes_per_step, stage.tokens_of_a_pass)
    return [chosen[positions] for positions in passes]


def clip_gradient(optimizer: FlatOptimizer, longest: float) -> None:
    """Scales the gradient over all parts down to a length, if it is longer."""
    factor = torch.clamp(longest / (optimizer.gradient_norm() + 1e-12), max=1.0)
    for part in optimizer.parts.values():
        part.gradient.mul_(factor)


def add_penalty_gradient(part: FlatParameters, add_penalty: AddPenalty, is_logged: bool) -> Tensor | None:
    """Adds the penalty's gradient; where logged, returns its length relative to the cross-entropy's."""
    if not is_logged:
        add_penalty()
        return None
    cross_entropys = part.gradient.clone()
    part.gradient.zero_()
    add_penalty()
    ratio = torch.linalg.vector_norm(part.gradient) / (torch.linalg.vector_norm(cross_entropys) + 1e-30)
    part.gradient.add_(cross_entropys)
    return ratio
