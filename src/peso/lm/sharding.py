"""A frozen backbone in shards: each process keeps its share of every layer and gathers a layer while it computes it.

Only what trains is whole everywhere, so its gradients are summed as without shards. Source: FSDP2, `fully_shard` of
PyTorch (Zhao and others, PyTorch FSDP, VLDB 2023), per decoder layer, then embedding, head and the rest of the body.

A gather is a meeting of all processes: all must make as many passes, in the same order. Passes that learn are counted
beforehand (`peso.training.processes.own_passes`); a beam search goes on as long as it likes inside
`answering_others`.

Shapes: V vocabulary, D width.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from peso.lm.backbone import body_of
from peso.lm.device import move_to_accelerator
from peso.lm.lora_linear import compute_in_parts
from peso.types import Kernels

log = logging.getLogger(__name__)


def shard_frozen(model: PreTrainedModel, kernels: Kernels = "auto") -> None:
    """Leaves each process its share of what does not train, on the accelerator if there is one; changed in place.

    Layers then compute as the libraries write them: a matrix merged with its adapter, or folded with a norm, would be
    a copy that stays.

    Args:
        model: a backbone that every process holds whole, with an adapter injected; the processes have joined.
        kernels: whether libraries of kernels may serve it on an accelerator.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device, (dist.get_world_size(),)),
        "reshard_after_forward": True,
        "ignored_params": {parameter for parameter in model.parameters() if parameter.requires_grad},
    }
    whole = frozen_bytes_here(model)
    body = body_of(model)
    compute_in_parts(model)
    for layer in _layers(model):
        fully_shard(layer, **options)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    input_table, output_table = _frozen_table(embedding), _frozen_table(head)
    is_tied = input_table.weight is output_table.weight
    # Behind a trained copy of the whole table the frozen one is read by nobody: its shards are never gathered.
    fully_shard(input_table if isinstance(embedding, ModulesToSaveWrapper) else embedding, **options)
    if is_tied:
        output_table._parameters["weight"] = input_table._parameters["weight"]
    else:
        fully_shard(output_table, **options)
    fully_shard(body, **options)
    move_to_accelerator(model, kernels)
    # The first gather makes the buffers that later ones fill; of inference mode they would be of no use in training.
    with torch.no_grad():
        _pass_of_one_token(model)
    log.info("each process keeps %.3g of %.3g MB of the backbone", frozen_bytes_here(model) / 1e6, whole / 1e6)


@dataclass(frozen=True)
class ShardedBytes:
    """What `shard_frozen` leaves a process of the parameters that do not train.

    Attributes:
        kept: its shards; of uneven ones the largest.
        gathered: the most that is whole besides while a pass goes through the layers or the head reads its matrix.
        opening: the same while the pass reads its first tokens, when it holds nothing else yet.
    """

    kept: int
    gathered: int
    opening: int


def sharded_bytes(model: PreTrainedModel, num_processes: int, reads_head: bool) -> ShardedBytes:
    """What a process would hold, counted on a model that is whole, or has no contents.

    A gather has a layer twice: forward as it comes and as it computes, backward while the one before it comes.

    Args:
        model: with an adapter injected.
        num_processes: that share it.
        reads_head: whether losses run over the whole vocabulary, so that each pass gathers the head's matrix.
    """
    head = model.get_output_embeddings()
    table = _frozen_bytes(_frozen_table(model.get_input_embeddings()))
    head_table = 0 if isinstance(head, ModulesToSaveWrapper) or not reads_head else _frozen_bytes(_frozen_table(head))
    if isinstance(model.get_input_embeddings(), ModulesToSaveWrapper):
        table = 0
    layers = _layers(model)
    layer = max(map(_frozen_bytes, layers))
    rest = _frozen_bytes(body_of(model)) - sum(map(_frozen_bytes, layers))
    rest -= _frozen_bytes(_frozen_table(model.get_input_embeddings()))
    kept = sum(-(-len(one) // num_processes) * one[0].nbytes for one in _frozen(model))
    return ShardedBytes(kept, rest + max(2 * layer, layer + head_table), rest + table + 2 * max(table, layer))


def is_sharded(model: PreTrainedModel) -> bool:
    """Whether a model's passes are meetings of all processes."""
    return isinstance(body_of(model), FSDPModule)


def whole_matrix(weight: Tensor) -> Tensor:
    """A weight [V, D] outside its module's pass; if it is in shards, a copy, and all processes must ask for it."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def frozen_bytes_here(model: nn.Module) -> int:
    """Bytes of the parameters that do not train, as far as this process holds them between passes."""
    return sum((one.to_local() if isinstance(one, DTensor) else one).nbytes for one in _frozen(model))


@contextmanager
def answering_others(model: PreTrainedModel) -> Iterator[None]:
    """Inside, each process makes passes without gradients, as many as it likes; all leave together.

    Every pass begins with a sign to the others. Who has finished waits for signs and answers each with a pass over one
    token, so that the layer is gathered; without a sign from anybody all are done.

    Args:
        model: nothing happens unless it is in shards.
    """
    if not is_sharded(model):
        yield
        return

    def announce(*_: Any) -> None:
        _count_active(1)

    # Before the hook that gathers the body's own weights.
    handle = body_of(model).register_forward_pre_hook(announce, prepend=True)
    try:
        yield
    finally:
        handle.remove()
    with torch.no_grad():
        while _count_active(0):
            _pass_of_one_token(model)


def _count_active(own: int) -> int:
    active = torch.tensor(own)
    dist.all_reduce(active)
    return int(active)


def _pass_of_one_token(model: PreTrainedModel) -> None:
    body_of(model)(input_ids=torch.zeros((1, 1), dtype=torch.int64, device=model.device), use_cache=False)


def _frozen(module: nn.Module) -> set[nn.Parameter]:
    return {parameter for parameter in module.parameters() if not parameter.requires_grad}


def _frozen_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in _frozen(module))


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers: the first list of modules that is as long as the model is deep."""
    depth = model.config.get_text_config().num_hidden_layers
    lists = (module for module in body_of(model).modules() if isinstance(module, nn.ModuleList))
    return list(next(layers for layers in lists if len(layers) == depth))


def _frozen_table(module: nn.Module) -> nn.Module:
    """The module whose matrix the backbone brought along, under whatever trains beside it."""
    return module.original_module if isinstance(module, AuxiliaryTrainingWrapper) else module
