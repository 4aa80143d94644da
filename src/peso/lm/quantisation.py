"""A frozen backbone in four bits per weight, as in QLoRA: NF4 with doubly quantised scales, by bitsandbytes.

Linear layers of the decoder stack are stored so and multiplied in bfloat16; embedding, head, norms and everything that
trains keep their type. Source: Dettmers and others, QLoRA, NeurIPS 2023.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from peso.errors import ConfigError, InstallationError
from peso.types import Quantisation

_BYTES_PER_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A code; a byte of scale per 64 weights; a float32 per 256 scales."""


def check_quantisation(quantisation: Quantisation) -> None:
    """Whether this machine computes with such weights.

    Args:
        quantisation: "none" is always fine.

    Raises:
        ConfigError: there is no CUDA device.
        InstallationError: bitsandbytes is missing.
    """
    if quantisation == "none":
        return
    if not torch.cuda.is_available():
        raise ConfigError(
            f'backbone.quantisation "{quantisation}" needs a CUDA device, and there is none here; use a machine with '
            'one, or "none".'
        )
    if find_spec("bitsandbytes") is None:
        raise InstallationError(
            f'backbone.quantisation "{quantisation}" needs the library bitsandbytes, which is not installed: '
            "pip install 'peso-rec[gpu]'."
        )


def loading_options(quantisation: Quantisation) -> dict[str, Any]:
    """What `from_pretrained` is told beside a model's name."""
    if quantisation == "none":
        return {}
    options = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantisation,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": options}


def is_quantised(config: PretrainedConfig) -> bool:
    """Whether the linear layers of a model with this configuration are stored in few bits."""
    return getattr(config, "quantization_config", None) is not None


def quantised_bytes(body: nn.Module) -> tuple[int, int]:
    """What quantisation would save of a stack that is whole, and what a pass needs besides.

    Args:
        body: a decoder stack, an adapter injected or not; may have no contents.

    Returns:
        Bytes by which its stored weights would shrink, and bytes of the largest matrix spelled out in bfloat16.
    """
    sizes, saved = [0], 0.0
    for module in body.modules():
        if type(module) is nn.Linear or isinstance(module, Conv1D):
            weight = module.weight
            assert isinstance(weight, Tensor)
            if not weight.requires_grad:
                sizes.append(weight.numel())
                saved += weight.nbytes - weight.numel() * _BYTES_PER_WEIGHT
    return int(saved), max(sizes) * torch.bfloat16.itemsize
