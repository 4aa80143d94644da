"""The true best items, by beam searches that widen until nothing they left out can matter.

No level has more than 1/p prefixes of probability p or more, so a list whose last item has probability p is certain
once the width exceeds 1/p, and in practice long before.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from peso.decoding.beam import BeamResult


def exact_search(search: Callable[[Tensor, int], BeamResult], num_users: int, beam_width: int) -> BeamResult:
    """Doubles the width for the users whose list is not certain yet, until all are.

    Args:
        search: given users, int64 [n], and a width, the results of a beam search for them, on the CPU.
        num_users: searches 0 : num_users.
        beam_width: the first width, at least the list length.

    Returns:
        The best items of the catalogue; every list is certain (items of equal score may stand for one another).
    """
    result = search(torch.arange(num_users), beam_width)
    items, scores, bound = result.items, result.scores, result.bound
    open_users = torch.nonzero(~result.is_certain).squeeze(1)
    while len(open_users):
        beam_width *= 2
        wider = search(open_users, beam_width)
        items[open_users], scores[open_users], bound[open_users] = wider.items, wider.scores, wider.bound
        open_users = open_users[~wider.is_certain]
    return BeamResult(items, scores, bound)
