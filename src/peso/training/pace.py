"""What a token of a training stage takes, in training and in validation: timed here, or counted for an accelerator."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from peso.data.dataset import IntArray
from peso.lm.likelihood import CodeLikelihood
from peso.training.code_losses import evaluation_batches
from peso.training.materials import Reader
from peso.training.optimisation import FlatOptimizer
from peso.training.probing import PlannedStage, Probed, built, ready, shares_of_stage
from peso.training.stage import Stage
from peso.training.steps import add_gradient, training_step

_FEW_LAYERS = 2
_MORE_LAYERS_COUNTED, _MORE_LAYERS_TIMED = 3, 6
"""Times differ by chance, and a wider step between depths carries less of it to the whole one."""
_TIMED_BATCHES, _COUNTED_BATCHES = 8, 1
"""Short batches' tokens take longer each, but hardly more operations."""
_TIMED_ROUNDS = 3
_PATIENCE_SECONDS = 20.0
"""After so long no further round is begun."""


@dataclass(frozen=True)
class Pace:
    """Of one process, per token without padding: seconds, or floating-point operations.

    Attributes:
        training: of an optimizer step, forward and back.
        validation: forward only.
    """

    training: float
    validation: float


def whole_pace(probed: Probed) -> Pace:
    """Of a stage with the whole backbone; of a deeper one from steps at two smaller depths.

    Args:
        probed: the stage; operations are counted instead of seconds where tensors have no contents.
    """
    num_layers = probed.shallow.num_layers
    many = _MORE_LAYERS_COUNTED if probed.on_gpu else _MORE_LAYERS_TIMED
    if num_layers <= many:
        return _pace_at_depth(probed, num_layers)
    few, more = (_pace_at_depth(probed, depth) for depth in (_FEW_LAYERS, many))
    further = (num_layers - _FEW_LAYERS) / (many - _FEW_LAYERS)
    return Pace(
        few.training + further * max(more.training - few.training, 0.0),
        few.validation + further * max(more.validation - few.validation, 0.0),
    )


def _pace_at_depth(probed: Probed, num_layers: int) -> Pace:
    planned = probed.stage
    reader, whole, _ = built(probed, num_layers)
    stage, mode = ready(probed, reader, whole)
    lengths, weights = reader.builder.row_lengths(stage.train_rows), stage.train_rows.num_targets
    most = _COUNTED_BATCHES if probed.on_gpu else _TIMED_BATCHES
    shares = _evenly(shares_of_stage(replace(stage, epochs=1), lengths, weights, probed.num_processes), lengths, most)
    valid_lengths = reader.builder.row_lengths(planned.valid_rows)
    valid = _evenly(evaluation_batches(reader.builder, planned.valid_rows), valid_lengths, most)
    training = sum(_efforts(_steps(reader, stage, shares, mode), mode)) / sum(int(lengths[one].sum()) for one in shares)
    if not valid:
        return Pace(training, 0.0)
    validating = sum(_efforts(_validations(reader, planned, valid), mode))
    return Pace(training, validating / sum(int(valid_lengths[one].sum()) for one in valid))


def _evenly(batches: list[IntArray], lengths: IntArray, most: int) -> list[IntArray]:
    """A few of the batches, evenly from that of fewest tokens to that of most; of one, the middle."""
    ordered = sorted(batches, key=lambda batch: int(lengths[batch].sum()))
    number = min(most, len(ordered))
    return [ordered[(2 * place + 1) * len(ordered) // (2 * number)] for place in range(number)]


def _steps(
    reader: Reader, stage: Stage, shares: list[IntArray], mode: FakeTensorMode | None
) -> list[Callable[[], object]]:
    """A training step for each share, with the optimizer's where there are contents."""
    model, likelihood = reader.model, reader.likelihood
    if mode is not None:
        return [partial(_add_gradient, model, likelihood, stage, share) for share in shares]
    optimizer = FlatOptimizer(stage.parts, stage.learning_rates, stage.weight_decay, 1, 0.0)
    return [partial(_step, model, likelihood, stage, optimizer, share) for share in shares]


def _add_gradient(model: PreTrainedModel, likelihood: CodeLikelihood, stage: Stage, share: IntArray) -> None:
    add_gradient(model.train(), likelihood, stage, share)


def _step(
    model: PreTrainedModel, likelihood: CodeLikelihood, stage: Stage, optimizer: FlatOptimizer, share: IntArray
) -> None:
    training_step(model.train(), likelihood, stage, optimizer, share)


def _validations(reader: Reader, planned: PlannedStage, batches: list[IntArray]) -> list[Callable[[], object]]:
    return [partial(_validate, reader, planned, batch) for batch in batches]


@torch.no_grad()
def _validate(reader: Reader, planned: PlannedStage, chosen: IntArray) -> None:
    batch = reader.builder.batch(planned.valid_rows.take(chosen)).to(reader.model.device)
    reader.likelihood.negative_log_likelihood(reader.model.eval(), batch)


def _efforts(works: list[Callable[[], object]], mode: FakeTensorMode | None) -> list[float]:
    """Of each piece of work: the median of its seconds, or operations where there are no contents."""
    if mode is not None:
        return [_operations_of(work, mode) for work in works]
    works[0]()  # the first one makes room
    began = time.perf_counter()
    rounds: list[list[float]] = []
    while len(rounds) < _TIMED_ROUNDS and (not rounds or time.perf_counter() - began < _PATIENCE_SECONDS):
        rounds.append([_seconds_of(work) for work in works])
    return [float(seconds) for seconds in np.median(rounds, axis=0)]


def _operations_of(work: Callable[[], object], mode: FakeTensorMode) -> float:
    with mode, FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
