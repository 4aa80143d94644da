"""Models whose tensors have shapes and types but no contents: every operation is gone through, none is computed."""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


def without_contents(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replaces the tensors of a model on the meta device by ones that pass for a CPU's, in place.

    Tied parameters stay tied; what trains has a gradient, as in training.

    Args:
        model: made under `torch.device("meta")`.
        mode: inside which the model will be called.
    """
    known: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        on_meta = torch.empty_like(tensor, device="meta")
        passing: Tensor = FakeTensor(mode, on_meta, torch.device("cpu"))
        return passing

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in known:
                    replacement = nn.Parameter(fake(parameter.detach()), requires_grad=parameter.requires_grad)
                    if parameter.requires_grad:
                        replacement.grad = fake(parameter.detach())
                    known[id(parameter)] = replacement
                module._parameters[name] = known[id(parameter)]  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)
