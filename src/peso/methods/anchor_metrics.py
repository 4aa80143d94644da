"""The metrics that the decoupled pull can measure distance by, each for A and B and for token rows.

| metric | A and B | token rows |
|---|---|---|
| softmax | H = N (diag q - q q^T) of each matrix | the same of each table |
| identity | H = I | H = I |
| fisher | mean squared gradients of the block's training targets | the same |
| past_fisher | mean squared gradients of the previous block's, as in EWC | the same |
| kronecker | second moments of a layer's inputs and output gradients | as fisher |
| counts | as softmax | by how rarely the block shows a code |

What the data choose is measured at the anchor, on the block that is about to be learned (but for past_fisher): what its
loss depends on is held, what it does not feel is free. Proposition 1 then gives every direction nearly the same share
of the way to the new optimum, where the identity gives flat ones less. Every metric has mean 1, so a strength means the
same in all.
"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from peso.methods.base import BlockView, Part
from peso.methods.diagonal_pull import DiagonalPull, curvature_weights, rarity_weights
from peso.methods.kronecker_pull import kronecker_pull
from peso.methods.pull import Pull, softmax_pull, together
from peso.types import MetricName

Anchors = Mapping[Part, Sequence[Tensor]]
"""Each part's groups after the previous block, one float32 [G, N] tensor per size."""


def _softmax(anchors: Anchors, view: BlockView, strength: float) -> Mapping[Part, Pull]:
    return {part: softmax_pull(groups, strength) for part, groups in anchors.items()}


def _identity(anchors: Anchors, view: BlockView, strength: float) -> Mapping[Part, Pull]:
    return {
        part: together([DiagonalPull(one, one.new_ones(1, 1), strength) for one in groups])
        for part, groups in anchors.items()
    }


def _fisher(anchors: Anchors, view: BlockView, strength: float) -> Mapping[Part, Pull]:
    return _fisher_of(view.block, anchors, view, strength)


def _past_fisher(anchors: Anchors, view: BlockView, strength: float) -> Mapping[Part, Pull]:
    return _fisher_of(view.block - 1, anchors, view, strength)


def _fisher_of(block: int, anchors: Anchors, view: BlockView, strength: float) -> Mapping[Part, Pull]:
    squares = view.squared_gradients(block, tuple(anchors))
    pulls: dict[Part, Pull] = {}
    for part, groups in anchors.items():
        weights = curvature_weights(squares[part], view.group_names(part))
        pulls[part] = diagonal_pull(groups, weights, strength)
    return pulls


def _kronecker(anchors: Anchors, view: BlockView, strength: float) -> Mapping[Part, Pull]:
    # A table reads one row per token: over its rows the second moment is diagonal as it is.
    rows: Anchors = {"token_rows": anchors["token_rows"]}
    moments = view.layer_moments(view.block)
    lora = kronecker_pull(anchors["lora"], view.group_names("lora"), moments, strength)
    return {"lora": lora, **_fisher(rows, view, strength)}


def _counts(anchors: Anchors, view: BlockView, strength: float) -> Mapping[Part, Pull]:
    rows = anchors["token_rows"]
    weights = []
    for groups_GN, counts_GR in zip(rows, view.row_counts(view.block), strict=True):
        width = groups_GN.shape[1] // counts_GR.shape[1]
        weights.append(rarity_weights(counts_GR).repeat_interleave(width, dim=1))
    return {"lora": softmax_pull(anchors["lora"], strength), "token_rows": diagonal_pull(rows, weights, strength)}


def diagonal_pull(anchor: Sequence[Tensor], weights: Sequence[Tensor], strength: float) -> Pull:
    """The pull of all groups of a part with given weights, laid out alike."""
    return together([DiagonalPull(one, own, strength) for one, own in zip(anchor, weights, strict=True)])


METRIC_PULLS: dict[MetricName, Callable[[Anchors, BlockView, float], Mapping[Part, Pull]]] = {
    "softmax": _softmax,
    "identity": _identity,
    "fisher": _fisher,
    "past_fisher": _past_fisher,
    "kronecker": _kronecker,
    "counts": _counts,
}
"""From anchors, what may be looked at, and a strength to the pull of every part."""
