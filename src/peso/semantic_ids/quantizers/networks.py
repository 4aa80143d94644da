"""What the trained quantizers share: small networks, their inputs' scale, and their layers once they are frozen.

Shapes: B batch, N items, D dimensions of the vectors, X any width.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor, nn

from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.quantizers.additive import Layer


def build_network(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with rectified units between them.

    Args:
        widths: from input to output.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mean_square(difference_BX: Tensor) -> Tensor:
    """Squared length of the rows, averaged over the batch."""
    return difference_BX.square().sum(dim=1).mean()


def unit_scale(vectors: Vectors) -> np.float32:
    """What to multiply vectors [N, D] with so that the mean variance of a coordinate is 1; 1 where all are equal."""
    deviation = float(np.sqrt(vectors.var(axis=0, dtype=np.float64).mean()))
    return np.float32(1 / deviation if deviation > 0 else 1)


def frozen_layers(network: nn.Module, mean: Vectors, scale: np.float32) -> list[Layer]:
    """Layers that do to vectors what the network does to (vectors - mean) x scale.

    Args:
        network: of `build_network`.
        mean: [D].
        scale: of the network's inputs.
    """
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    layers = [(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()) for layer in linear]
    weight, bias = layers[0]
    layers[0] = (weight * scale, bias - weight @ mean * scale)
    return layers
