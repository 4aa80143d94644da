"""Codes of a batch under which every code is used alike: entropic optimal transport between rows and codewords.

Shapes: B batch, K codes.
"""

import math

import torch
from torch import Tensor

_RELATIVE_ENTROPY = 0.05
_NUM_ITERATIONS = 30


@torch.no_grad()
def balanced_codes(distances_BK: Tensor) -> Tensor:
    """Of the plan that moves 1 / B from each row and 1 / K to each codeword, the codeword that each row gives most.

    The plan minimises cost minus eps times entropy, eps a twentieth of the mean distance, by Sinkhorn's iterations on
    logarithms.

    Args:
        distances_BK: squared distances, at least 0, [B, K].

    Returns:
        int64 [B].
    """
    num_rows, num_codes = distances_BK.shape
    mean = distances_BK.mean().clamp_min(torch.finfo(distances_BK.dtype).tiny)
    log_plan_BK = -distances_BK / (_RELATIVE_ENTROPY * mean)
    for _ in range(_NUM_ITERATIONS):
        log_plan_BK = log_plan_BK - log_plan_BK.logsumexp(dim=0, keepdim=True) - math.log(num_codes)
        log_plan_BK = log_plan_BK - log_plan_BK.logsumexp(dim=1, keepdim=True) - math.log(num_rows)
    return log_plan_BK.argmax(dim=1)
