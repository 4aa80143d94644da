"""The memory of a training step at a small depth, counted: what `peso.training.planning` extrapolates from."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
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
from peso.training.stage import Stage, batches_of_epoch, tokens_of_a_pass
from peso.training.steps import add_gradient

FLOAT_BYTES = 4
_STATE_COPIES = 6
"""Of what trains, beside its values: gradient, two moments, where the block began, twice, and the best epoch."""
_PULL_COPIES, _TERM_COPIES, _SHARE_COPIES = 3, 1, 2
_FACTOR_COPIES = 2
"""Of a second moment over a layer's features: itself and its eigenvectors."""
_DEPTHS = (2, 3)
"""One apart: the difference is one layer's."""


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


@dataclass(frozen=True, eq=False)
class Probed:
    """What is gone through, at any depth.

    Attributes:
        materials: data and configuration.
        shallow: the backbone's shape.
        stage: what to train.
        on_gpu: tensors have no contents.
        num_processes: that share the batches and, if the configuration says so, the frozen backbone.
    """

    materials: Materials
    shallow: ShallowBackbone
    stage: PlannedStage
    on_gpu: bool
    num_processes: int

    @property
    def in_shards(self) -> bool:
        """Whether each process holds a part of the frozen backbone."""
        return self.materials.config.training.sharding == "fsdp" and self.num_processes > 1


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
    """

    num_parameters: int
    num_trained: int
    weights_bytes: int
    state_bytes: int
    pass_bytes: int
    gathered_bytes: int
    opening_bytes: int


def whole_cost(probed: Probed) -> Cost:
    """Of a stage with the whole backbone; of a deeper one from steps at two and at three layers.

    With one layer the worst moment may be another than with many: where logits are made, not where layers go back.

    Args:
        probed: the stage.
    """
    num_layers = probed.shallow.num_layers
    if num_layers <= _DEPTHS[1]:
        return _cost_at_depth(probed, num_layers)
    few, more = (asdict(_cost_at_depth(probed, depth)) for depth in _DEPTHS)
    further = num_layers - _DEPTHS[0]
    return Cost(**{name: of_few + further * (more[name] - of_few) for name, of_few in few.items()})


def _cost_at_depth(probed: Probed, num_layers: int) -> Cost:
    config, planned, num_processes = probed.materials.config, probed.stage, probed.num_processes
    reader, whole, num_parameters = built(probed, num_layers)
    model = reader.model
    shards = ShardedBytes(0, 0, 0)
    if probed.in_shards:
        shards = sharded_bytes(model, num_processes, config.training.normaliser == "vocabulary")
    trained = [(name, parameter) for name, parameter in whole.named_parameters() if parameter.requires_grad]
    num_trained = sum(parameter.numel() for _, parameter in trained)
    weights = sum(tensor.nbytes for tensor in (*whole.parameters(), *whole.buffers()))
    if probed.in_shards:
        weights += shards.kept - frozen_bytes_here(whole)
    saved, spelled_out = (0, 0) if config.backbone.quantisation == "none" else quantised_bytes(body_of(model))
    shapes = [tuple(parameter.shape) for name, parameter in trained if "lora_" in name]
    of_anchor = _anchor_size(config, num_trained, shapes) if planned.name == "update" else 0
    stage, mode = ready(probed, reader, whole)
    heavy = _heaviest_shares(stage, planned.rows, num_processes)
    # Weights and gradients are counted above; views of them are no more.
    standing = [*whole.parameters(), *whole.buffers(), *(p.grad for _, p in trained if p.grad is not None)]
    with mode or nullcontext(), LiveBytes(standing) as live:
        _validate(model, reader, planned.valid_rows)
        model.train()
        for heavy_rows in heavy[:1] if probed.on_gpu else heavy:
            add_gradient(model, reader.likelihood, replace(stage, train_rows=heavy_rows), np.arange(len(heavy_rows)))
    return Cost(
        num_parameters=num_parameters,
        num_trained=num_trained,
        weights_bytes=weights - saved,
        state_bytes=(num_trained * _STATE_COPIES + of_anchor) * FLOAT_BYTES,
        pass_bytes=live.peak + spelled_out,
        gathered_bytes=shards.gathered,
        opening_bytes=shards.opening,
    )


def built(probed: Probed, num_layers: int) -> tuple[Reader, nn.Module, int]:
    """The backbone as it is read, the same with the adapter that the stage trains, and the backbone's parameters.

    Args:
        probed: the stage.
        num_layers: how many to build.
    """
    materials, config = probed.materials, probed.materials.config
    with torch.device("meta") if probed.on_gpu else nullcontext():
        model = probed.shallow.build(num_layers)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if not probed.on_gpu:
        make_ready(model, probed.in_shards)
    reader = build_reader(materials, model, probed.shallow.tokenizer)
    whole: nn.Module = model
    if not probed.stage.trains_backbone:
        with torch.device("meta") if probed.on_gpu else nullcontext():
            whole = attach_adapter(model, config.adapter, reader.builder.vocabulary.all_token_ids, config.seed)
    if probed.in_shards:
        compute_in_parts(model)
    return reader, whole, num_parameters


def ready(probed: Probed, reader: Reader, whole: nn.Module) -> tuple[Stage, FakeTensorMode | None]:
    """The first of the planned rows, as they are trained, and the mode in which a model without contents is.

    Args:
        probed: the stage.
        reader: of `built`.
        whole: of `built`; changed in place.
    """
    planned, training = probed.stage, probed.materials.config.training
    mode = FakeTensorMode(allow_non_fake_inputs=True) if probed.on_gpu else None
    if mode is not None:
        without_contents(whole, mode)
    trained = [(name, parameter) for name, parameter in whole.named_parameters() if parameter.requires_grad]
    parts = {} if probed.on_gpu else {planned.name: FlatParameters(trained)}
    order, rows = next(iter(planned.rows.items()))
    stage = Stage(
        name=order, key="", block=0, parts=parts, builder=reader.builder, train_rows=rows,
        valid_rows=planned.valid_rows, epochs=planned.epochs, learning_rates=dict.fromkeys(parts, 0.0),
        batch_targets=planned.batch_targets, weight_decay=0.0, training=training, seed=probed.materials.config.seed,
        tokens_of_a_pass=0 if probed.on_gpu or probed.in_shards else tokens_of_a_pass(reader.model, training),
    )  # fmt: skip
    if training.gradient_checkpointing:
        reader.model.activation_checkpointing_enable({"use_reentrant": False})
    return stage, mode


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
    averaged = num_trained * _SHARE_COPIES if config.proximal.share != 1 else 0
    if config.proximal.form != "decoupled":
        return num_trained * _TERM_COPIES + averaged
    is_measured = config.proximal.metric in ("fisher", "past_fisher", "kronecker")
    squared_widths = sum(max(shape) ** 2 for shape in shapes) if config.proximal.metric == "kronecker" else 0
    return num_trained * (_PULL_COPIES + is_measured) + averaged + _FACTOR_COPIES * squared_widths


def _heaviest_shares(stage: Stage, rows: dict[str, Rows], num_processes: int) -> list[Rows]:
    """Of all processes' shares of all epochs' batches, those that may need most memory.

    A pass of theirs has most tokens once padded: of all, and of those short enough for a CPU's ways with short rows.
    """
    found: list[tuple[int, int, str, IntArray]] = []  # tokens of the heaviest pass, of the longest row; which rows
    for order, of_block in rows.items():
        lengths, weights = stage.builder.row_lengths(of_block), of_block.num_targets
        for share in shares_of_stage(replace(stage, name=order), lengths, weights, num_processes):
            its_lengths = lengths[share]
            passes = passes_of_step(its_lengths, weights[share], stage.training.passes_per_step, stage.tokens_of_a_pass)
            tokens = max(int(its_lengths[one].max()) * len(one) for one in passes)
            found.append((tokens, int(its_lengths.max()), order, share))
    found.sort(key=lambda entry: entry[0])
    heavy = [found[-1]]
    for longest in (SHORT_ATTENTION, SHORT_STACK):
        heavy += [entry for entry in found if entry[1] <= longest][-1:]
    return [rows[order].take(share) for _, _, order, share in heavy]


def shares_of_stage(stage: Stage, lengths: IntArray, weights: IntArray, num_processes: int) -> list[IntArray]:
    """Of all processes, in all batches of all epochs, as `share_of` deals them out.

    Args:
        stage: names the order.
        lengths: int64 [R], tokens of each training row.
        weights: int64 [R], targets of each.
        num_processes: that share a batch.
    """
    batches = [batch for epoch in range(stage.epochs) for batch in batches_of_epoch(stage, lengths, weights, epoch)]
    return [share for batch in batches for p in range(num_processes) if len(share := batch[p::num_processes])]
