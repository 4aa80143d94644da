"""Where models compute, and with which kernels."""

import ctypes
import platform
from contextlib import suppress
from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedModel

from peso.lm.kernels import use_kernels
from peso.lm.quantisation import is_quantised
from peso.lm.quick_layers import write_out_layers
from peso.lm.quick_stack import write_out_stack
from peso.types import Kernels

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_LARGEST_BLOCK_BYTES, _LARGEST_HEAP_BYTES = 1 << 30, (1 << 31) - 1


@cache
def keep_freed_memory() -> None:
    """Lets the C library reuse the memory of freed tensors instead of giving it back to the kernel each time.

    A pass allocates and frees megabytes many times over, and by default every block beyond a limit is mapped and
    cleared by the kernel anew, page fault by page fault. glibc only; nothing happens elsewhere.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _LARGEST_HEAP_BYTES)


def moved(table: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device; copies to CUDA come from pinned memory, so that nothing waits for them."""
    if device.type != "cuda" or table.device.type != "cpu":
        return table.to(device)
    return table.pin_memory().to(device, non_blocking=True)


def make_ready(model: PreTrainedModel, awaits_shards: bool = False, kernels: Kernels = "auto") -> PreTrainedModel:
    """Moves a model to the accelerator, if there is one, and gives it the kernels that suit the place.

    On CUDA that is FlexAttention, which skips what nobody sees in lines that users or branches share. A CPU has no way
    back for it, so there scaled dot products stay, layers are written out, and freed memory is kept.

    Args:
        model: a plain backbone; changed in place.
        awaits_shards: whether it is to be cut into shards later on: until then it stays in main memory, or in its file
            where it is mapped, and the stack keeps its own code, which has no copies of weights.
        kernels: whether libraries of kernels may serve it on an accelerator.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
        write_out_layers(model, is_mapped=awaits_shards)
        if not awaits_shards:
            write_out_stack(model)
    elif not awaits_shards:
        move_to_accelerator(model, kernels)
    return model


def move_to_accelerator(model: PreTrainedModel, kernels: Kernels) -> None:
    """Moves a model, or what of it is not there yet, and gives it the accelerator's kernels; nothing without one.

    Args:
        model: an adapter injected or not; changed in place.
        kernels: whether libraries of kernels may serve it.
    """
    if torch.cuda.is_available():
        with suppress(ValueError):  # a model without it keeps its own way
            model.set_attn_implementation("flex_attention")
        if not is_quantised(model.config):  # such a model was loaded there
            torch.nn.Module.cuda(model)
        use_kernels(model, kernels)
