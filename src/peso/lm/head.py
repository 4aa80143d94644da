"""What a model's head makes of a state, for some of its rows.

Shapes: N states, D width, C rows.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel


def logit_cap(model: PreTrainedModel) -> float | None:
    """The bound that a model's logits are bent under (Gemma 2: 30); None where they are plain products."""
    cap: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return cap


def logits_of(states_ND: Tensor, rows_CD: Tensor, cap: float | None) -> Tensor:
    """Logits of some tokens.

    Args:
        states_ND: [..., D], after the final norm.
        rows_CD: [C, D]; trained rows are float32 whatever the backbone is, and the product then is too.
        cap: c of `logit_cap`; the product z becomes c tanh(z / c).

    Returns:
        float32 [..., C].
    """
    dtype = torch.promote_types(states_ND.dtype, rows_CD.dtype)
    logits = functional.linear(states_ND.to(dtype), rows_CD.to(dtype)).float()
    return logits if cap is None else torch.tanh(logits / cap) * cap
