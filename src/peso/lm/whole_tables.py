"""Embedding and head that train as whole matrices beside a backbone, as in the released code.

PEFT keeps a trainable copy of each module and leaves the original frozen. Copies are float32, whatever the backbone
is, so that small steps are not lost; what they hand on has the backbone's type.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

_ADAPTER = "default"


def widen_copies(model: PeftModel) -> None:
    """Turns the trainable copies of whole modules into float32, in place; nothing happens without any.

    Args:
        model: holds an adapter.
    """
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.modules_to_save.float()
            module.__dict__["forward"] = MethodType(_forward, module)


def copied_parameters(model: PeftModel) -> list[tuple[str, nn.Parameter]]:
    """Name of each wrapped module within the model, and its trainable copy's matrix."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            weight = module.modules_to_save[_ADAPTER].weight
            assert isinstance(weight, nn.Parameter)
            found.append((name, weight))
    return found


def _forward(self: ModulesToSaveWrapper, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    usual: Callable[..., Tensor] = type(self).forward
    if isinstance(self.original_module, nn.Embedding):
        return usual(self, x, *args, **kwargs).to(self.original_module.weight.dtype)
    return usual(self, x.to(torch.float32), *args, **kwargs)
