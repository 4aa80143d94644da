"""One training step at a small depth, counted: what `peso.training.planning` extrapolates from."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from peso.config import RunConfig
from peso.data.dataset import IntArray
from peso.lm.adapters import attach_adapter
from peso.lm.backbone import body_of
from peso.lm.batching import passes_of_step
from peso.lm.device import make_ready
from peso.lm.fake import without_contents
from peso.lm.live_bytes import LiveBytes
from peso.lm.lora_linear import compute_in_parts
from peso.lm.parameters import FlatParameters
from peso.lm.quantisation import quantised_bytes
from peso.lm.quick_stack import LONGEST as SHORT_STACK
from peso.lm.rows import Rows
from peso.lm.shallow import ShallowBackbone
from peso.lm.sharding import ShardedBytes, frozen_bytes_here, sharded_bytes
from peso.lm.short_attention import LONGEST as SHORT_ATTENTION
from peso.training.code_losses import evaluation_batches
from peso.training.materials import Materials, Reader, build_reader
from peso.training.trainer import Stage, add_gradient, batches_of_epoch, tokens_of_a_pass

FLOAT_BYTES = 4
_STATE_COPIES = 6
"""Of what trains, beside its values: gradient, two moments, where the block began, twice, and the best epoch."""
_PULL_COPIES, _TERM_COPIES = 3, 1
_FACTOR_COPIES = 2
"""Of a second moment over a layer's features: itself and its eigenvectors."""
_DEPTHS = (2, 3)
_TIMED_STEPS = 5


@dataclass(frozen=True)
class PlannedStage:
    """A training stage to come.

    Attributes:
        name: "backbone" (the embedded one on block 0), "base" (the adapter on block 0) or "update".
        rows: training rows by the name that decides the order of their batches; of several blocks that are trained
            alike, the largest first.
        batch_targets: targets per optimizer step.
        epochs: passes over the rows.
        valid_rows: what is validated on after each, where that is most.
    """

    name: str
    rows: dict[str, Rows]
    batch_targets: int
    epochs: int
    valid_rows: Rows

    @property
    def trains_backbone(self) -> bool:
        """Whether all weights train, and no adapter is there."""
        return self.name == "backbone"


@dataclass(frozen=True)
class Cost:
    """A stage at some depth.

    Attributes:
        num_parameters: of the backbone.
        num_trained: parameters that train.
        weights_bytes: of backbone and adapter, as far as a process holds them between passes.
        state_bytes: gradients, moments and copies of what trains.
        pass_bytes: the most that is alive besides during a step on a process's share of the heaviest batch.
        gathered_bytes: of a backbone in shards, what is whole at that time.
        opening_bytes: the same at the beginning of a pass, when nothing else is alive.
        effort: of a step on a share of a middling batch of the first rows: seconds, or floating-point operations.
        num_tokens: of that share.
    """

    num_parameters: int
    num_trained: int
    weights_bytes: int
    state_bytes: int
    pass_bytes: int
    gathered_bytes: int
    opening_bytes: int
    effort: float
    num_tokens: int


def cost_at_depth(
    materials: Materials,
    shallow: ShallowBackbone,
    stage: PlannedStage,
    num_layers: int,
    on_gpu: bool,
    num_processes: int,
) -> Cost:
    """Of a stage with the whole backbone; of a deeper one from steps at two and at three layers.

    With one layer the worst moment may be another than with many: where logits are made, not where layers go back.

    Args:
        materials: data and configuration.
        shallow: the backbone's shape.
        stage: what to train.
        num_layers: of the whole backbone.
        on_gpu: go through the step without contents, and count operations instead of seconds.
        num_processes: that share the batches and, if the configuration says so, the frozen backbone.
    """
    if num_layers <= _DEPTHS[1]:
        return _probe(materials, shallow, stage, num_layers, on_gpu, num_processes)
    few, more = (asdict(_probe(materials, shallow, stage, depth, on_gpu, num_processes)) for depth in _DEPTHS)
    more["effort"] = max(few["effort"], more["effort"])  # what else runs may make the deeper one seem the faster
    further = (num_layers - _DEPTHS[0]) / (_DEPTHS[1] - _DEPTHS[0])
    return Cost(**{name: of_few + further * (more[name] - of_few) for name, of_few in few.items()})


def _probe(
    materials: Materials,
    shallow: ShallowBackbone,
    planned: PlannedStage,
    num_layers: int,
    on_gpu: bool,
    num_processes: int,
) -> Cost:
    config = materials.config
    in_shards = config.training.sharding == "fsdp" and num_processes > 1
    reader, whole, num_parameters = _built(materials, shallow, planned, num_layers, on_gpu, in_shards)
    model = reader.model
    shards = ShardedBytes(0, 0, 0)
    if in_shards:
        compute_in_parts(model)
        shards = sharded_bytes(model, num_processes, config.training.normaliser == "vocabulary")
    trained = [(name, parameter) for name, parameter in whole.named_parameters() if parameter.requires_grad]
    num_trained = sum(parameter.numel() for _, parameter in trained)
    weights = sum(tensor.nbytes for tensor in (*whole.parameters(), *whole.buffers()))
    if in_shards:
        weights += shards.kept - frozen_bytes_here(whole)
    saved, spelled_out = (0, 0) if config.backbone.quantisation == "none" else quantised_bytes(body_of(model))
    shapes = [tuple(parameter.shape) for name, parameter in trained if "lora_" in name]
    of_anchor = _anchor_size(config, num_trained, shapes) if planned.name == "update" else 0
    mode = FakeTensorMode(allow_non_fake_inputs=True) if on_gpu else None
    if mode is not None:
        without_contents(whole, mode)
    parts = {} if on_gpu else {planned.name: FlatParameters(trained)}
    limit = 0 if on_gpu or in_shards else tokens_of_a_pass(model, config.training)
    stage = _stage(config, reader, planned, parts, limit)
    if config.training.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    heavy, middling = _chosen_shares(stage, planned.rows, num_processes)
    # Weights and gradients are counted above; views of them are no more.
    standing = [*whole.parameters(), *whole.buffers(), *(p.grad for _, p in trained if p.grad is not None)]
    with mode or nullcontext(), LiveBytes(standing) as live:
        _validate(model, reader, planned.valid_rows)
        model.train()
        for heavy_rows in heavy[:1] if on_gpu else heavy:
            add_gradient(model, reader.likelihood, replace(stage, train_rows=heavy_rows), np.arange(len(heavy_rows)))
    return Cost(
        num_parameters=num_parameters,
        num_trained=num_trained,
        weights_bytes=weights - saved,
        state_bytes=(num_trained * _STATE_COPIES + of_anchor) * FLOAT_BYTES,
        pass_bytes=live.peak + spelled_out,
        gathered_bytes=shards.gathered,
        opening_bytes=shards.opening,
        effort=_effort(reader, stage, middling, mode),
        num_tokens=int(reader.builder.row_lengths(stage.train_rows)[middling].sum()),
    )


def _built(
    materials: Materials,
    shallow: ShallowBackbone,
    planned: PlannedStage,
    num_layers: int,
    on_gpu: bool,
    in_shards: bool,
) -> tuple[Reader, nn.Module, int]:
    """The backbone as it is read, the same with the adapter that the stage trains, and the backbone's parameters."""
    config = materials.config
    with torch.device("meta") if on_gpu else nullcontext():
        model = shallow.build(num_layers)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if not on_gpu:
        make_ready(model, in_shards)
    reader = build_reader(materials, model, shallow.tokenizer)
    if planned.trains_backbone:
        return reader, model, num_parameters
    with torch.device("meta") if on_gpu else nullcontext():
        adapted = attach_adapter(model, config.adapter, reader.builder.vocabulary.all_token_ids, config.seed)
    return reader, adapted, num_parameters


def _stage(
    config: RunConfig, reader: Reader, planned: PlannedStage, parts: dict[str, FlatParameters], limit: int
) -> Stage:
    """The first of the planned rows, as they are trained.

    Args:
        config: of the run.
        reader: writes rows as tokens.
        planned: what to train.
        parts: what trains.
        limit: tokens of a pass; 0 for none.
    """
    order, rows = next(iter(planned.rows.items()))
    return Stage(
        name=order, key="", block=0, parts=parts, builder=reader.builder, train_rows=rows,
        valid_rows=planned.valid_rows, epochs=planned.epochs, learning_rates={}, batch_targets=planned.batch_targets,
        weight_decay=0.0, training=config.training, seed=config.seed, tokens_of_a_pass=limit,
    )  # fmt: skip


def _effort(reader: Reader, stage: Stage, share: IntArray, mode: FakeTensorMode | None) -> float:
    """Of a step on a share of a batch: seconds, or operations where there are no contents."""

    def step() -> None:
        add_gradient(reader.model, reader.likelihood, stage, share)

    if mode is not None:
        with mode, FlopCounterMode(display=False) as counter:
            step()
        return float(counter.get_total_flops())
    step()  # the first one of a shape makes room for it
    return statistics.median(_seconds_of(step) for _ in range(_TIMED_STEPS))


def _seconds_of(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


@torch.no_grad()
def _validate(model: PreTrainedModel, reader: Reader, rows: Rows) -> None:
    """Goes through the heaviest batch of a validation."""
    batches = evaluation_batches(reader.builder, rows)
    if batches:
        lengths = reader.builder.row_lengths(rows)
        heaviest = max(batches, key=lambda batch: int(lengths[batch].max()) * len(batch))
        batch = reader.builder.batch(rows.take(heaviest)).to(model.device)
        reader.likelihood.negative_log_likelihood(model.eval(), batch).double()


def _anchor_size(config: RunConfig, num_trained: int, shapes: Sequence[tuple[int, ...]]) -> int:
    """Numbers that PESO keeps for its pull or its term: copies of what trains, and of A and B their factors."""
    if config.method != "peso":
        return 0
    if config.proximal.form != "decoupled":
        return num_trained * _TERM_COPIES
    is_measured = config.proximal.metric in ("fisher", "kronecker")
    squared_widths = sum(max(shape) ** 2 for shape in shapes) if config.proximal.metric == "kronecker" else 0
    return num_trained * (_PULL_COPIES + is_measured) + _FACTOR_COPIES * squared_widths


def _chosen_shares(stage: Stage, rows: dict[str, Rows], num_processes: int) -> tuple[list[Rows], IntArray]:
    """Of all processes' shares of all epochs' batches, those that may need most memory, and one of the stage's middle.

    A pass of theirs has most tokens once padded: of all, and of those short enough for a CPU's ways with short rows.
    """
    found: list[tuple[int, int, str, IntArray]] = []  # tokens of the heaviest pass, of the longest row; which rows
    for order, of_block in rows.items():
        lengths, weights = stage.builder.row_lengths(of_block), of_block.num_targets
        for share in _shares(replace(stage, name=order), lengths, weights, num_processes):
            its_lengths = lengths[share]
            passes = passes_of_step(its_lengths, weights[share], stage.training.passes_per_step, stage.tokens_of_a_pass)
            tokens = max(int(its_lengths[one].max()) * len(one) for one in passes)
            found.append((tokens, int(its_lengths.max()), order, share))
    found.sort(key=lambda entry: entry[0])
    heavy = [found[-1]]
    for longest in (SHORT_ATTENTION, SHORT_STACK):
        heavy += [entry for entry in found if entry[1] <= longest][-1:]
    own = [share for _, _, order, share in found if order == stage.name]
    return [rows[order].take(share) for _, _, order, share in heavy], own[len(own) // 2]


def _shares(stage: Stage, lengths: IntArray, weights: IntArray, num_processes: int) -> list[IntArray]:
    """Of all processes, in all batches of all epochs, as `share_of` deals them out."""
    batches = [batch for epoch in range(stage.epochs) for batch in batches_of_epoch(stage, lengths, weights, epoch)]
    return [share for batch in batches for p in range(num_processes) if len(share := batch[p::num_processes])]
