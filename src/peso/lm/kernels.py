"""Fused kernels of other libraries on a CUDA device: Liger's norms and gated layers, FlashAttention's passes.

They are used where they are installed and serve the model, and nowhere else; nothing of peso needs them. Liger puts
its classes into the library's module for all models to come, which is undone: only the model at hand is changed. (Its
rotary positions work that way alone and are left out.) FlashAttention knows no lines that targets or users share, so
only passes in which every line is one history go through it.

Sources: Hsu and others, Liger Kernel, 2024; Dao, FlashAttention-2, ICLR 2024.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from transformers import PretrainedConfig, PreTrainedModel

from peso.types import Kernels

LIGER, FLASH = "liger", "flash_attention_2"
PACKAGES = {LIGER: "liger-kernel", FLASH: "flash-attn"}
"""What is installed for each."""

_LIGER_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Models of plain RMS norms and layers gated by SiLU."""
_FLASH = "_passes_by_flash_attention"


def kernels_for(config: PretrainedConfig, chosen: Kernels) -> list[str]:
    """Which of them serve a model here.

    Args:
        config: of the model, with its type of weights.
        chosen: "stock" for none.
    """
    if chosen == "stock" or not torch.cuda.is_available():
        return []
    text = config.get_text_config()
    serves = {
        LIGER: find_spec("liger_kernel") is not None and text.model_type in _LIGER_FAMILIES,
        FLASH: find_spec("flash_attn") is not None and text.dtype == torch.bfloat16,
    }
    return [name for name, does in serves.items() if does]


def use_kernels(model: PreTrainedModel, chosen: Kernels) -> None:
    """Lets a model compute with the kernels that serve it; changed in place, on its device.

    Args:
        model: an adapter injected or not.
        chosen: "stock" leaves it as it is.
    """
    kernels = kernels_for(model.config, chosen)
    if LIGER in kernels:
        _patch_with_liger(model)
    if FLASH in kernels:
        setattr(model, _FLASH, True)


@contextmanager
def attending_by_flash(model: PreTrainedModel) -> Iterator[None]:
    """Passes inside, each line one history with padding on the right, use FlashAttention if `use_kernels` chose it."""
    if not getattr(model, _FLASH, False):
        yield
        return
    config = model.config.get_text_config()
    usual = config._attn_implementation
    config._attn_implementation = FLASH
    try:
        yield
    finally:
        config._attn_implementation = usual


def _patch_with_liger(model: PreTrainedModel) -> None:
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    module = sys.modules[type(model).__module__]
    before = dict(vars(module))
    _apply_liger_kernel_to_instance(
        model=model, rope=False, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False
    )
    for name, value in before.items():
        setattr(module, name, value)
