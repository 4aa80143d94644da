"""What a block carries on lies between where it started and where its training ended: the weighted mean of both.

    v = a + s (u - a) = argmin_v  1/2 ||v - u||^2 + c/2 ||v - a||^2,   c = 1 / s - 1,

with a the parameters that a stage starts from and u those after an epoch: one more proximal step, in the identity's
metric, on all that was trained at once. What a few passes over one block teach is partly that block's noise, and the
mean of two models that share their past has less of it (Wortsman and others, "Robust fine-tuning of zero-shot models",
CVPR 2022). It costs no training, and the next block starts from v. What recommends may be ahead of that, w = v + l (u -
v): slow weights that learn on and fast ones that are used (as in Zhang and others, "Lookahead optimizer", NeurIPS 2019,
with a block in the place of a few steps).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from torch import Tensor

from peso.lm.parameters import FlatParameters

SEARCH_LOSSES = 2
"""Validation losses that choosing takes beside the one of every epoch, most often."""
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""What "auto" chooses from."""
FIRST_SHARE = 0.8
"""What it begins with, and uses where there is nothing to choose by."""


@contextmanager
def averaged(parts: Mapping[str, FlatParameters], starts: Mapping[str, Tensor], share: float) -> Iterator[None]:
    """Puts the mean into the parts for as long as the context lasts, and what was trained back after it.

    Args:
        parts: what trains.
        starts: a of each part, float32 [P]; not read at share 1.
        share: s, above 0 and at most 1; 1 leaves all as it is.
    """
    if share == 1:
        yield
        return
    trained = {name: part.snapshot() for name, part in parts.items()}
    for name, part in parts.items():
        part.restore(starts[name].lerp(trained[name], share))
    try:
        yield
    finally:
        for name, part in parts.items():
            part.restore(trained[name])


def served_share(share: float, lead: float) -> float:
    """How much of the way the version that recommends goes: from the share that is carried on, a part of the rest."""
    return share + lead * (1 - share)


def go_ahead(parts: Mapping[str, FlatParameters], starts: Mapping[str, Tensor], share: float, lead: float) -> None:
    """Moves the parts from the mean that the next block starts from on to the version that recommends.

    Args:
        parts: what trained, at the mean of a share.
        starts: a of each part, float32 [P].
        share: of the mean, above 0.
        lead: part of the rest of the way.
    """
    factor = served_share(share, lead) / share
    for name, part in parts.items():
        part.restore(starts[name].lerp(part.snapshot(), factor))


def first_share(share: float | Literal["auto"]) -> float:
    """The share of every epoch but one after which it is chosen."""
    return FIRST_SHARE if share == "auto" else share


def best_share(loss_at: Callable[[float], float], first: float, loss: float) -> tuple[float, float]:
    """Climbs from one of `SHARES` to neighbours of less loss, until there is none: two losses or a few more.

    Args:
        loss_at: the validation loss of a share.
        first: where to begin.
        loss: its loss.

    Returns:
        The share, and its loss.
    """
    best = SHARES.index(first)
    for direction in (1, -1):
        began = best
        while 0 <= best + direction < len(SHARES):
            following = loss_at(SHARES[best + direction])
            if following >= loss:
                break
            best, loss = best + direction, following
        if best != began:
            break
    return SHARES[best], loss
