"""What a run will need, before anything is started: memory, speed, hours per block.

A layer costs what it costs at any depth. So one training step of the workspace's own batches is gone through at two
and at three layers of the backbone's full width, tensors and operations are counted, and the difference is what every
further layer adds. On a CPU the step is really taken, and timed. For an accelerator it is taken on tensors without
contents, which need neither the memory nor the machine.
"""

from dataclasses import dataclass

from peso.config import RunConfig
from peso.data.examples import targets_of_block
from peso.errors import ConfigError
from peso.lm.backbone import EMBEDDED
from peso.lm.quantisation import check_quantisation
from peso.lm.rows import Rows
from peso.lm.shallow import ShallowBackbone
from peso.methods.registry import build_method
from peso.training.averaging import SEARCH_LOSSES
from peso.training.base import BACKBONE, training_rows, validation_rows
from peso.training.materials import Materials, build_reader
from peso.training.pace import Pace, whole_pace
from peso.training.probing import FLOAT_BYTES, Cost, PlannedStage, Probed, whole_cost
from peso.training.processes import check_processes
from peso.training.search import passes_over_block
from peso.types import Precision

GIB = 2**30
_STORED_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2}
_CHECKPOINT_COPIES = 3
"""Of what trains, while a checkpoint is written after an epoch: values and moments."""


@dataclass(frozen=True)
class StagePlan:
    """What one training stage needs.

    Attributes:
        name: "backbone" (the embedded one on block 0), "base" (the adapter on block 0) or "update".
        num_trained: parameters that train.
        weights_bytes: the backbone's weights, and the adapter's where they are no part of it.
        state_bytes: gradients, moments and copies of what trains.
        pass_bytes: the most that a step (activations, logits, their gradients) or a checkpoint adds to both.
        total_bytes: of all tensors at the worst moment; a library's own memory comes on top.
    """

    name: str
    num_trained: int
    weights_bytes: int
    state_bytes: int
    pass_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class BlockPlan:
    """What one block takes.

    Attributes:
        block: 0 is the base.
        num_targets: training targets.
        num_tokens: tokens of all its epochs, padding not counted.
        hours: training time, with a validation after each epoch.
    """

    block: int
    num_targets: int
    num_tokens: int
    hours: float


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        num_processes: that share the run; bytes are those of one of them.
        num_parameters: of the backbone.
        version_bytes: size of the adapter file that recommends.
        carried_bytes: most that the file which the next block starts from takes; 0 where it is always the same file.
        stages: in order.
        peak_bytes: of the largest stage.
        gpu_memory_bytes: what there is; None on a CPU.
        fits: whether the peak, and a tenth of the memory for libraries and fragmentation, are within it.
        tokens_per_second: in an update's training steps, of all processes.
        assumed: what the speed rests on.
        blocks: in order.
        not_planned: parts of the run that memory and hours leave out.
    """

    num_processes: int
    num_parameters: int
    version_bytes: int
    carried_bytes: int
    stages: list[StagePlan]
    peak_bytes: int
    gpu_memory_bytes: int | None
    fits: bool | None
    tokens_per_second: float
    assumed: str
    blocks: list[BlockPlan]
    not_planned: list[str]


RESERVED_SHARE = 0.1
"""Of an accelerator's memory, for libraries and fragmentation."""


def plan_run(materials: Materials, gpu_memory_gib: float | None, teraflops: float, num_processes: int = 1) -> Plan:
    """Plans a run of a method that trains an adapter; those that keep past adapters need a little more.

    Args:
        materials: data and configuration.
        gpu_memory_gib: plan for an accelerator with so much memory; None plans for this CPU, and times it.
        teraflops: floating-point operations per second that an accelerator keeps up, in 10^12.
        num_processes: that share the run; each on an accelerator of its own, or on cores as good as those here.

    Raises:
        ConfigError: the backbone's configuration or tokenizer is missing, or a plan for this CPU has weights that it
            cannot compute with; or a single process has nobody to share its backbone with; or the method trains no
            adapter.
    """
    on_gpu = gpu_memory_gib is not None
    rows_of_block = _rows_of_blocks(materials, num_processes)
    probed = _probed(materials, rows_of_block, on_gpu, num_processes)
    costs = [whole_cost(one) for one in probed]
    stages = [_stage_plan(one.stage, cost) for one, cost in zip(probed, costs, strict=True)]
    unit = (1e12 * teraflops if on_gpu else 1) * num_processes
    paces = [whole_pace(one) for one in probed]
    peak = max(stage.total_bytes for stage in stages)
    memory = None if gpu_memory_gib is None else round(gpu_memory_gib * GIB)
    version_bytes = costs[-1].num_trained * _STORED_BYTES[materials.config.adapter.stored_precision]
    method = build_method(materials.config)
    return Plan(
        num_processes=num_processes,
        num_parameters=costs[-1].num_parameters,
        version_bytes=version_bytes,
        carried_bytes=version_bytes if method.lead and method.share != 1 else 0,
        stages=stages,
        peak_bytes=peak,
        gpu_memory_bytes=memory,
        fits=None if memory is None else does_fit(peak, memory),
        tokens_per_second=unit / paces[-1].training,
        assumed=_assumed(teraflops if on_gpu else None, num_processes),
        blocks=_blocks(materials, rows_of_block, probed, paces, unit),
        not_planned=not_planned(materials.config),
    )


def plan_memory(materials: Materials, on_gpu: bool, num_processes: int = 1) -> list[StagePlan]:
    """The stages of `plan_run` alone, without a look at speed.

    Args:
        materials: data and configuration.
        on_gpu: plan for an accelerator instead of this CPU.
        num_processes: that share the run.

    Raises:
        ConfigError: as of `plan_run`.
    """
    rows_of_block = _rows_of_blocks(materials, num_processes)
    probed = _probed(materials, rows_of_block, on_gpu, num_processes)
    return [_stage_plan(one.stage, whole_cost(one)) for one in probed]


def does_fit(peak_bytes: int, memory_bytes: int) -> bool:
    """Whether tensors of so many bytes leave a tenth of an accelerator's memory to libraries and fragmentation."""
    return peak_bytes <= (1 - RESERVED_SHARE) * memory_bytes


def _rows_of_blocks(materials: Materials, num_processes: int) -> list[Rows]:
    """What is trained on in each block, after a look at whether it can be planned."""
    check_processes(materials.config, num_processes)
    method = build_method(materials.config)
    if method.trains in ("nothing", "all_weights"):
        raise ConfigError(f'method "{materials.config.method}" trains no adapter, and a plan is that of an adapter.')
    first, *later = range(materials.dataset.num_blocks)
    targets = [targets_of_block(materials.dataset, first, "train")]
    targets += [method.examples(materials.dataset, block, materials.config.seed) for block in later]
    return [training_rows(materials, of_block) for of_block in targets]


def _probed(materials: Materials, rows_of_block: list[Rows], on_gpu: bool, num_processes: int) -> list[Probed]:
    backbone = materials.config.backbone
    if not on_gpu:
        check_quantisation(backbone.quantisation)
    shallow = ShallowBackbone(backbone, materials.semantic_ids.level_sizes)
    return [Probed(materials, shallow, stage, on_gpu, num_processes) for stage in _stages(materials, rows_of_block)]


def _stage_plan(stage: PlannedStage, cost: Cost) -> StagePlan:
    in_a_pass = max(cost.pass_bytes + cost.gathered_bytes, cost.opening_bytes)
    passing = max(in_a_pass, cost.num_trained * FLOAT_BYTES * _CHECKPOINT_COPIES)
    total = cost.weights_bytes + cost.state_bytes + passing
    return StagePlan(stage.name, cost.num_trained, cost.weights_bytes, cost.state_bytes, passing, total)


def _blocks(
    materials: Materials, rows_of_block: list[Rows], probed: list[Probed], paces: list[Pace], unit: float
) -> list[BlockPlan]:
    shallow, epochs = probed[0].shallow, materials.config.training.epochs
    builder = build_reader(materials, shallow.build(1), shallow.tokenizer).builder
    method = build_method(materials.config)
    num_rates, num_strengths = len(materials.config.training.rate_factors), len(method.candidates())
    epochs_of_update = passes_over_block(num_rates, num_strengths, epochs)
    searched = SEARCH_LOSSES if method.share == "auto" else 0
    of_base = [(pace, one.stage.epochs) for pace, one in zip(paces[:-1], probed[:-1], strict=True)]
    blocks = []
    for block, rows in enumerate(rows_of_block):
        passes = [(paces[-1], epochs_of_update)] if block else of_base
        num_tokens = int(builder.row_lengths(rows).sum())
        num_validated = int(builder.row_lengths(validation_rows(materials, block)).sum())
        effort = sum(epochs * (num_tokens * pace.training + num_validated * pace.validation) for pace, epochs in passes)
        effort += searched * num_validated * paces[-1].validation if block else 0
        num_tokens *= sum(epochs for _, epochs in passes)
        blocks.append(BlockPlan(block, int(rows.num_targets.sum()), num_tokens, effort / unit / 3600))
    return blocks


def not_planned(config: RunConfig) -> list[str]:
    """The parts of such a run that a plan leaves out."""
    parts = {
        "the alignment of titles with semantic IDs": config.alignment.epochs > 0,
        "the adapter of all data so far": config.method == "lsat",
        "past adapters": config.method in ("sum_lora", "sd_lora", "inf_lora", "o_lora"),
        "what the method's own penalty keeps": config.method in ("ewc", "o_lora", "orthogonal", "output_kl"),
    }
    return [part for part, is_left_out in parts.items() if is_left_out]


def _assumed(teraflops: float | None, num_processes: int) -> str:
    speed = "timed here, as busy as this machine is now" if teraflops is None else f"{teraflops:g} teraflop/s kept up"
    return speed if num_processes == 1 else f"{speed}, times {num_processes} processes that never wait for each other"


def _stages(materials: Materials, rows_of_block: list[Rows]) -> list[PlannedStage]:
    """The base's, and that of the later blocks."""
    config, training = materials.config, materials.config.training
    base, batch = rows_of_block[0], training.base_batch_targets
    valid, *later_valid = (validation_rows(materials, block) for block in range(len(rows_of_block)))
    stages = []
    if config.backbone.source == EMBEDDED:
        stages += [PlannedStage(BACKBONE, {f"base_{BACKBONE}": base}, batch, config.backbone.epochs, valid)]
    if training.base_epochs:
        stages += [PlannedStage("base", {"base_adapter": base}, batch, training.base_epochs, valid)]
    later = {f"block_{block}": rows for block, rows in enumerate(rows_of_block) if block}
    by_size = sorted(later.items(), key=lambda entry: int(entry[1].num_targets.sum()), reverse=True)
    update = PlannedStage("update", dict(by_size), training.batch_targets, training.epochs, max(later_valid, key=len))
    return [*stages, update]
