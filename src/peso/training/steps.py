"""One optimizer step: the gradient of some rows, in passes and over processes, clipped, penalised, pulled."""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from peso.lm.batching import passes_of_step
from peso.lm.likelihood import CodeLikelihood
from peso.lm.parameters import FlatParameters
from peso.lm.sharding import is_sharded
from peso.training.optimisation import FlatOptimizer
from peso.training.processes import add_over_processes, num_processes, own_passes, share_of
from peso.training.pulled_steps import PulledSteps
from peso.training.stage import AddPenalty, Stage


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
