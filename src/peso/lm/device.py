"""Where models compute, and with which kernels."""

import torch
from transformers import PreTrainedModel

from peso.lm.quick_layers import write_out_layers


def make_ready(model: PreTrainedModel) -> PreTrainedModel:
    """Moves a model to the accelerator, if there is one, and gives it the kernels that suit the place.

    On CUDA that is FlexAttention, which skips what nobody sees in lines that users or branches share. A CPU has no way
    back for it, so there scaled dot products stay, and norms and gated layers are written out.

    Args:
        model: a plain backbone; changed in place.
    """
    if not torch.cuda.is_available():
        write_out_layers(model)
        return model
    model.set_attn_implementation("flex_attention")
    torch.nn.Module.cuda(model)
    return model
