"""A and B of every adapted layer as values: what continual methods start from, freeze, normalise and combine.

Shapes: r rank, I and O input and output features of a layer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from peso.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class LowRank:
    """An update B A of every adapted layer, without the adapter's scale.

    Attributes:
        a: per layer, named such as `layers.0.self_attn.q_proj`, float32 [r, I].
        b: per layer, float32 [O, r].
    """

    a: dict[str, Tensor]
    b: dict[str, Tensor]

    @property
    def rank(self) -> int:
        """r, the same in every layer."""
        return len(next(iter(self.a.values())))

    def normalised(self) -> "LowRank":
        """A / ||A||_F and B / ||B||_F of every layer; a matrix of zeros stays one."""
        return self._mapped(_of_unit_length, _of_unit_length)

    def scaled(self, factor: float) -> "LowRank":
        """The update times a number, which goes into B."""
        return self._mapped(lambda a: a, lambda b: b * factor)

    def to(self, device: torch.device) -> "LowRank":
        """The same update on a device."""
        return self._mapped(lambda a: a.to(device), lambda b: b.to(device))

    def last(self, rank: int) -> "LowRank":
        """The update of the last rows of A and columns of B."""
        return self._mapped(lambda a: a[-rank:], lambda b: b[:, -rank:])

    def _mapped(self, of_a: Callable[[Tensor], Tensor], of_b: Callable[[Tensor], Tensor]) -> "LowRank":
        return LowRank({k: of_a(v) for k, v in self.a.items()}, {k: of_b(v) for k, v in self.b.items()})


def _of_unit_length(matrix: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(matrix)
    return matrix / length if length > 0 else matrix


def summed(pieces: Sequence[LowRank]) -> LowRank:
    """The sum of several updates as one of the summed rank: their A on top of one another, their B side by side.

    Args:
        pieces: at least one, all of the same layers.
    """
    return LowRank(
        {name: torch.cat([piece.a[name] for piece in pieces]) for name in pieces[0].a},
        {name: torch.cat([piece.b[name] for piece in pieces], dim=1) for name in pieces[0].b},
    )


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that carry an adapter, by the names of `LowRank`: PEFT's, over plain matrices and quantised ones."""
    return {
        name.removeprefix("base_model.model.").removeprefix("model."): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def read_low_rank(model: PeftModel) -> LowRank:
    """Copies of the active adapter's matrices."""
    weights = {name: _weights(layer) for name, layer in adapted_layers(model).items()}
    return LowRank(
        {name: a.detach().clone() for name, (a, _) in weights.items()},
        {name: b.detach().clone() for name, (_, b) in weights.items()},
    )


@torch.no_grad()
def write_low_rank(model: PeftModel, state: LowRank) -> None:
    """Overwrites the active adapter's matrices; shapes must be equal."""
    for name, layer in adapted_layers(model).items():
        a, b = _weights(layer)
        a.copy_(state.a[name])
        b.copy_(state.b[name])


def fresh_low_rank(like: LowRank, seed: int) -> LowRank:
    """What LoRA starts from: A Kaiming uniform, B zero (the paper's initialisation).

    Args:
        like: gives names and shapes.
        seed: decides A.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "fresh adapter"))
    a = {}
    for name, matrix in like.a.items():
        bound = 1 / math.sqrt(matrix.shape[1])  # Kaiming uniform with slope sqrt(5), as PEFT
        a[name] = (torch.rand(matrix.shape, generator=generator) * (2 * bound) - bound).to(matrix.device)
    return LowRank(a, {name: torch.zeros_like(matrix) for name, matrix in like.b.items()})


def _weights(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    name = layer.active_adapters[0]
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    return a, b
