"""How surprised a model is by targets: -log p of every code, without a way back."""

import numpy as np
import torch
from transformers import PreTrainedModel

from peso.lm.likelihood import CodeLikelihood
from peso.lm.rows import Rows
from peso.lm.sequences import SequenceBuilder
from peso.lm.sharding import is_sharded
from peso.training.processes import add_over_processes, num_processes, own_passes

EVALUATION_BATCH_TOKENS = 4096
"""Tokens per forward pass when nothing has to be kept for a backward pass."""


def evaluation_batches(builder: SequenceBuilder, rows: Rows) -> list[np.ndarray]:
    """Row numbers in batches of similar length, each row once, no row dropped."""
    lengths = builder.row_lengths(rows)
    order = np.argsort(lengths, kind="stable")
    batch_number = np.cumsum(lengths[order]) // EVALUATION_BATCH_TOKENS
    return np.split(order, np.flatnonzero(np.diff(batch_number)) + 1) if len(order) else []


@torch.inference_mode()
def code_losses(model: PreTrainedModel, likelihood: CodeLikelihood, builder: SequenceBuilder, rows: Rows) -> np.ndarray:
    """-log p(code | history, codes before it) of each row's single target.

    Returns:
        float64 [R, M] in nats, in the order of the rows; the sum over M is -log p(item | history).
    """
    model.eval()
    losses = torch.zeros(len(rows), builder.vocabulary.num_levels, dtype=torch.float64)
    batches = evaluation_batches(builder, rows)
    shares = [batches[process :: num_processes()] for process in range(num_processes())]
    for chosen, counts in own_passes(shares, is_sharded(model)):
        batch = builder.batch(rows.take(chosen)).to(model.device)
        of_batch = likelihood.negative_log_likelihood(model, batch).double().cpu()
        if counts:
            losses[torch.from_numpy(chosen)] = of_batch
    add_over_processes(losses)
    return losses.numpy()


def mean_loss(model: PreTrainedModel, likelihood: CodeLikelihood, builder: SequenceBuilder, rows: Rows) -> float:
    """Mean of -log p(item | history) over each row's single target, in nats."""
    return float(code_losses(model, likelihood, builder, rows).sum(1).mean())
