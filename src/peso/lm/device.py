"""Where models compute."""

import torch
from transformers import PreTrainedModel


def to_device(model: PreTrainedModel) -> PreTrainedModel:
    """Moves a model to the accelerator, if there is one, and gives it the attention that suits the place.

    On CUDA that is FlexAttention, which skips what nobody sees in lines that users or branches share; elsewhere the
    model keeps what it was built with (scaled dot products), because FlexAttention has no way back there.
    """
    if not torch.cuda.is_available():
        return model
    if model.config._attn_implementation != "flex_attention":
        model.set_attn_implementation("flex_attention")
    torch.nn.Module.cuda(model)
    return model
