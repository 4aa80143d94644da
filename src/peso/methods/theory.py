r"""Proposition 1: along which directions an anchored update follows the new data, and how far.

Near its minimum v* the loss of a block is $L(v) = (v - v^*)^T \Sigma (v - v^*) / 2$, with $\Sigma$ the second moment of
the gradients. Anchored to v_prev by $\lambda \|v - v_{prev}\|_H^2 / 2$, its minimum is

$\hat v = (\Sigma + \lambda H)^{-1} (\Sigma v^* + \lambda H v_{prev})$,

and along each generalised eigenvector, $\Sigma q_k = \rho_k H q_k$ with $q_i^T H q_j = \delta_{ij}$,

$\langle \hat v, q_k \rangle_H = s_k \langle v^*, q_k \rangle_H + (1 - s_k) \langle v_{prev}, q_k \rangle_H$ with
$s_k = \rho_k / (\rho_k + \lambda)$, the share of the way to the new optimum that the update goes.

With H = I these are the squared singular values of the features (Cor. 2). The softmax's H has a null space, the common
shift of each group. There the pencil has no finite eigenvalue: the anchor does not hold a shift, which goes wherever
the loss sends it. The pairs given here are all finite ones. They solve $\Sigma q = \rho H q$ exactly, without a ridge:
each q carries the shift that makes it $\Sigma$-orthogonal to the null space, so that the loss over the rest is
$\Sigma$'s Schur complement, the loss after the best shift.

Everything is float64. Shapes: N coordinates, M examples, K directions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from peso.methods.metric import Metric


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Directions and what the data say about them.

    Attributes:
        values: rho, float64 [K], at least 0, falling.
        vectors: q, float64 [N, K], columns with q_i^T H q_j = delta_ij.
    """

    values: Tensor
    vectors: Tensor


@dataclass(frozen=True, eq=False)
class Shares:
    """What Proposition 1 predicts along each direction, and what an update did.

    Attributes:
        values: rho, float64 [K].
        predicted: rho / (rho + lambda), float64 [K].
        distance: <v* - v_prev, q>_H, float64 [K]: how far the new optimum was from the anchor.
        moved: <v - v_prev, q>_H, float64 [K]: how far the update went.
        outside: norm in H of the part of v - v_prev that lies along no direction; predicted to be 0 where the
            directions are all that have rho > 0.
    """

    values: Tensor
    predicted: Tensor
    distance: Tensor
    moved: Tensor
    outside: float

    @property
    def measured(self) -> Tensor:
        """The share that was moved, float64 [K]; not a number or infinite where the optimum lies at the anchor."""
        return self.moved / self.distance


def eigenpairs(second_moment: Tensor, metric: Metric) -> Eigenpairs:
    """All finite generalised eigenpairs of a given second moment.

    Args:
        second_moment: Sigma, float64 [N, N], symmetric, positive semi-definite.
        metric: H.

    Returns:
        As many pairs as H has rank, those with rho = 0 included.
    """
    sizes, basis = torch.linalg.eigh(metric.dense())
    is_seen = sizes > sizes[-1] * len(sizes) * torch.finfo(sizes.dtype).eps
    seen, unseen = basis[:, is_seen] / sizes[is_seen].sqrt(), basis[:, ~is_seen]
    # The best shift for each seen direction, by which Sigma no longer couples it to what H cannot see.
    coupling = unseen.T @ second_moment @ seen
    free = seen - unseen @ (torch.linalg.pinv(unseen.T @ second_moment @ unseen, hermitian=True) @ coupling)
    reduced = free.T @ second_moment @ free
    values, rotation = torch.linalg.eigh((reduced + reduced.T) / 2)
    return Eigenpairs(values.flip(0).clamp(min=0), (free @ rotation).flip(1))


def eigenpairs_of_gradients(gradients: Tensor, metric: Metric) -> Eigenpairs:
    """The pairs with rho > 0 of Sigma = mean of g g^T, without forming it: for adapters, where N is large.

    Let s [M, C] be the gradients summed over each group, all that the loss feels of a shift, and P the projection,
    across examples, onto what s does not span. P G has no component along any shift, so H's inverse on it is 1 / w,
    and the eigenvalues are those of the M x M matrix (P G) diag(1 / w) (P G)^T / M.

    Args:
        gradients: G, float64 [M, N], one example each.
        metric: H.

    Returns:
        At most M pairs; every other direction that H sees has rho = 0.
    """
    num_examples = len(gradients)
    summed = metric.sums(gradients.T).T
    inverse = torch.linalg.pinv(summed)
    projected = gradients - summed @ (inverse @ gradients)
    gram = (projected / metric.weights) @ projected.T / num_examples
    values, examples = torch.linalg.eigh((gram + gram.T) / 2)
    tolerance = num_examples * torch.finfo(values.dtype).eps
    is_informed = values > values[-1] * tolerance
    values, examples = values[is_informed].flip(0), examples[:, is_informed].flip(1)
    seen = (projected / metric.weights).T @ examples / (num_examples * values).sqrt()
    return Eigenpairs(values, seen - metric.shift(inverse @ (gradients @ seen)))


def predicted_share(values: Tensor, strength: float) -> Tensor:
    """How much of the way to the new optimum an anchored update goes: rho / (rho + lambda), 0 where rho is 0.

    Args:
        values: rho, float64 [K].
        strength: lambda, at least 0.
    """
    return torch.where(values > 0, values / (values + strength), 0.0)


def interpolated(pairs: Eigenpairs, metric: Metric, strength: float, optimum: Tensor, anchor: Tensor) -> Tensor:
    """<v, q>_H of the anchored minimum along each direction.

    Args:
        pairs: directions.
        metric: H.
        strength: lambda, at least 0.
        optimum: v*, float64 [N].
        anchor: v_prev, float64 [N].

    Returns:
        float64 [K].

    Source: PESO, Proposition 1 (Corollary 2 with the identity).
    """
    share = predicted_share(pairs.values, strength)
    return share * metric.coordinates(pairs.vectors, optimum) + (1 - share) * metric.coordinates(pairs.vectors, anchor)


def anchored_minimum(second_moment: Tensor, metric: Metric, strength: float, optimum: Tensor, anchor: Tensor) -> Tensor:
    """The minimum of loss and anchor in closed form.

    Where Sigma + lambda H is singular, neither has a say along its null space, and v stays at the anchor there, as
    gradient descent from the anchor does: v = v_prev + (Sigma + lambda H)^+ Sigma (v* - v_prev), which is the paper's
    formula wherever that exists.

    Args:
        second_moment: Sigma, float64 [N, N].
        metric: H.
        strength: lambda, at least 0.
        optimum: v*, float64 [N].
        anchor: v_prev, float64 [N].

    Returns:
        float64 [N].

    Source: PESO, Proposition 1.
    """
    curvature = second_moment + strength * metric.dense()
    return anchor + torch.linalg.pinv(curvature, hermitian=True) @ (second_moment @ (optimum - anchor))


def optimum_from_slope(pairs: Eigenpairs, start: Tensor, slope: Tensor) -> Tensor:
    """Where the quadratic loss has its minimum, by a Newton step along the directions with rho > 0.

    From slope = Sigma (v - v*) follows q^T slope = rho <v - v*, q>_H.

    Args:
        pairs: directions.
        start: v, float64 [N].
        slope: the gradient of the mean loss at v, float64 [N].

    Returns:
        v*, float64 [N]; equal to v along all other directions.
    """
    is_informed = pairs.values > 0
    vectors = pairs.vectors[:, is_informed]
    return start - vectors @ ((vectors.T @ slope) / pairs.values[is_informed])


def measured_shares(
    pairs: Eigenpairs, metric: Metric, strength: float, optimum: Tensor, anchor: Tensor, end: Tensor
) -> Shares:
    """What an update did along each direction, beside the prediction.

    Args:
        pairs: directions, from the gradients at the anchor.
        metric: H.
        strength: lambda of the update, at least 0.
        optimum: v*, float64 [N]: where the same update without an anchor ends, or `optimum_from_slope`.
        anchor: v_prev, float64 [N], where the update began.
        end: where the anchored update ended, float64 [N].
    """
    change = end - anchor
    moved = metric.coordinates(pairs.vectors, change)
    rest = change - pairs.vectors @ moved
    return Shares(
        values=pairs.values,
        predicted=predicted_share(pairs.values, strength),
        distance=metric.coordinates(pairs.vectors, optimum - anchor),
        moved=moved,
        outside=float(metric.squared_norm(rest).clamp(min=0).sqrt()),
    )
