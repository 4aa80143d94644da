"""What the loss of some training rows depends on, to second order: one backward pass per row.

Source: the diagonal is that of the empirical Fisher matrix, as in Kirkpatrick and others, PNAS 2017; the second moments
of inputs and output gradients are K-FAC's factors (Martens and Grosse, ICML 2015).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from peso.lm.low_rank import adapted_layers, read_low_rank
from peso.lm.parameters import FlatParameters
from peso.lm.quick_stack import layer_by_layer
from peso.lm.rows import Rows
from peso.methods.base import Part
from peso.training.materials import Reader


def squared_gradients(
    reader: Reader, parts: Mapping[str, FlatParameters], rows: Rows, wanted: Sequence[Part]
) -> dict[Part, list[Tensor]]:
    """Mean over rows of the squared gradient of a row's summed loss.

    Args:
        reader: model and loss.
        parts: all that trains; gradients are left at zero.
        rows: at least one.
        wanted: names of parts.

    Returns:
        Of each wanted part, laid out like its groups.
    """
    totals = {name: torch.zeros_like(parts[name].gradient) for name in wanted}
    for _ in _backward_passes(reader, parts, rows):
        for name, total in totals.items():
            total += parts[name].gradient.square()
    return {name: parts[name].groups(total / len(rows)) for name, total in totals.items()}


def layer_moments(
    reader: Reader, model: PeftModel, parts: Mapping[str, FlatParameters], rows: Rows
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean over tokens of x x^T and g g^T: x read by a layer, g the gradient with respect to what it gives.

    Args:
        reader: backbone and loss.
        model: the same backbone with its adapter.
        parts: all that trains; gradients are left at zero.
        rows: at least one.

    Returns:
        By the names of `LowRank`, float32 [I, I] and [O, O].
    """
    state = read_low_rank(model)
    moments = {
        name: (a.new_zeros(a.shape[1], a.shape[1]), a.new_zeros(len(state.b[name]), len(state.b[name])))
        for name, a in state.a.items()
    }

    def counting(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        inputs_II, outputs_OO = moments[name]

        def count_gradient(gradient: Tensor) -> None:
            tokens = gradient.flatten(0, -2).float()
            outputs_OO.addmm_(tokens.T, tokens)

        def count(_module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            tokens = arguments[0].detach().flatten(0, -2).float()
            inputs_II.addmm_(tokens.T, tokens)
            output.register_hook(count_gradient)

        return count

    num_tokens = 0
    with ExitStack() as watching:
        watching.enter_context(layer_by_layer(reader.model))
        for name, layer in adapted_layers(model).items():
            watching.callback(layer.register_forward_hook(counting(name)).remove)
        for tokens in _backward_passes(reader, parts, rows):
            num_tokens += tokens
    return {name: (inputs / num_tokens, outputs / num_tokens) for name, (inputs, outputs) in moments.items()}


def _backward_passes(reader: Reader, parts: Mapping[str, FlatParameters], rows: Rows) -> Iterator[int]:
    """The gradient of one row after the other, in the parts; gives the row's number of tokens."""
    reader.model.eval()
    for row in range(len(rows)):
        for part in parts.values():
            part.gradient.zero_()
        batch = reader.builder.batch(rows.take(torch.tensor([row]).numpy())).to(reader.model.device)
        reader.likelihood.negative_log_likelihood(reader.model, batch).sum().backward()
        yield batch.input_ids.numel()
    for part in parts.values():
        part.gradient.zero_()
