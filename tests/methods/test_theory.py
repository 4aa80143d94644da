"""Proposition 1 and Corollary 2: by hand, against gradient descent, and with a metric that cannot see everything."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from peso.methods.metric import Metric, identity_metric, softmax_metric
from peso.methods.proximal import l2_term, normalised_term, paper_term
from peso.methods.theory import (
    anchored_minimum,
    eigenpairs,
    eigenpairs_of_gradients,
    interpolated,
    measured_shares,
    optimum_from_slope,
    predicted_share,
)

SIZE = 12
METRICS = ["identity", "softmax", "two matrices"]


def assert_equal(actual: Tensor, expected: Tensor, relative: float = 1e-8, absolute: float | None = None) -> None:
    torch.testing.assert_close(actual, expected, rtol=relative, atol=relative / 10 if absolute is None else absolute)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def metric_of(name: str, anchor: Tensor) -> Metric:
    if name == "identity":
        return identity_metric(len(anchor))
    rows = 2 if name == "two matrices" else 1
    return softmax_metric([anchor.view(rows, -1)], times_size=True)


def problem(seed: int, num_examples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per-example gradients [M, N] with singular values of one order, an optimum and an anchor."""
    rows, _, columns = torch.linalg.svd(random(num_examples, SIZE, seed=seed), full_matrices=False)
    sizes = torch.linspace(0.5, 2.0, min(num_examples, SIZE), dtype=torch.float64)
    gradients = num_examples**0.5 * (rows * sizes) @ columns
    return gradients, random(SIZE, seed=seed + 1000), 0.5 * random(SIZE, seed=seed + 2000)


def moment(gradients: Tensor) -> Tensor:
    return gradients.T @ gradients / len(gradients)


def test_two_coordinates_by_hand() -> None:
    # Sigma = diag(3, 0), H = I, lambda = 1: three quarters of the way along the first axis, nothing along the second.
    sigma = torch.diag(torch.tensor([3.0, 0.0], dtype=torch.float64))
    optimum, anchor = torch.tensor([4.0, 4.0]).double(), torch.tensor([0.0, 1.0]).double()
    pairs = eigenpairs(sigma, identity_metric(2))
    assert pairs.values.tolist() == [3.0, 0.0]
    assert predicted_share(pairs.values, 1.0).tolist() == [0.75, 0.0]
    assert_equal(anchored_minimum(sigma, identity_metric(2), 1.0, optimum, anchor), torch.tensor([3.0, 1.0]).double())


def test_a_softmax_over_two_by_hand() -> None:
    # q = (1/2, 1/2): H = [[1, -1], [-1, 1]] / 4. Sigma = I: with x the difference and y the sum of the coordinates the
    # loss is (x^2 + y^2) / 4, the anchor's square x^2 / 4, so rho = 2 for the difference; the sum is free.
    metric = softmax_metric([torch.zeros(1, 2)])
    assert_equal(metric.dense(), torch.tensor([[0.25, -0.25], [-0.25, 0.25]]).double())
    pairs = eigenpairs(torch.eye(2, dtype=torch.float64), metric)
    assert_equal(pairs.values, torch.tensor([2.0]).double())
    assert_equal(pairs.vectors[:, 0].abs(), torch.tensor([1.0, 1.0]).double())
    optimum, anchor = torch.tensor([3.0, 5.0]).double(), torch.tensor([0.0, 0.0]).double()
    # lambda = 2: half of the difference of -2; the sum goes all the way to 8.
    reached = anchored_minimum(torch.eye(2, dtype=torch.float64), metric, 2.0, optimum, anchor)
    assert_equal(reached, torch.tensor([3.5, 4.5]).double())


@pytest.mark.parametrize("name", METRICS)
def test_the_metric_is_the_curvature_of_the_term(name: str) -> None:
    anchor = 0.5 * random(SIZE, seed=3)
    metric = metric_of(name, anchor)
    groups = anchor.view(2 if name == "two matrices" else 1, -1)
    term = (l2_term if name == "identity" else normalised_term)([groups])
    step = 1e-4 * random(*groups.shape, seed=4)
    expected = 0.5 * metric.squared_norm(step.flatten())
    assert_equal(term([groups + step]), expected, 1e-3, 0.0)
    if name == "softmax":
        plain = softmax_metric([groups])
        p = torch.softmax(anchor, 0)
        assert_equal(plain.dense(), torch.diag(p) - torch.outer(p, p))
        expected = 0.5 * plain.squared_norm(step.flatten())
        assert_equal(paper_term([groups])([groups + step]), expected, 1e-3, 0.0)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("num_examples", [30, 5])  # Sigma of full rank, and with seven directions that no example feels
def test_pairs_solve_the_pencil(name: str, num_examples: int) -> None:
    gradients, _, anchor = problem(0, num_examples)
    metric, sigma = metric_of(name, anchor), moment(gradients)
    pairs = eigenpairs(sigma, metric)
    assert len(pairs.values) == {"identity": SIZE, "softmax": SIZE - 1, "two matrices": SIZE - 2}[name]
    assert_equal(sigma @ pairs.vectors, metric.apply(pairs.vectors) * pairs.values)
    products = pairs.vectors.T @ metric.apply(pairs.vectors)
    assert_equal(products, torch.eye(len(products), dtype=torch.float64))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("num_examples", [30, 5])
def test_gradients_give_the_same_pairs_without_the_second_moment(name: str, num_examples: int) -> None:
    gradients, _, anchor = problem(1, num_examples)
    metric = metric_of(name, anchor)
    whole, thin = eigenpairs(moment(gradients), metric), eigenpairs_of_gradients(gradients, metric)
    assert_equal(thin.values, whole.values[: len(thin.values)])
    assert bool((whole.values[len(thin.values) :] < 1e-9).all())
    signs = torch.sign((thin.vectors * metric.apply(whole.vectors[:, : len(thin.values)])).sum(0))
    if name == "identity" or num_examples == 30:  # elsewhere a q is fixed up to a shift that no example feels
        assert_equal(thin.vectors * signs, whole.vectors[:, : len(thin.values)])
    assert_equal(moment(gradients) @ thin.vectors, metric.apply(thin.vectors) * thin.values)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("num_examples", [30, 5])
def test_gradient_descent_from_the_anchor_ends_at_the_closed_form(name: str, num_examples: int) -> None:
    gradients, optimum, anchor = problem(2, num_examples)
    metric, sigma = metric_of(name, anchor), moment(gradients)
    reached = anchor.clone()
    for _ in range(2000):
        reached -= 0.15 * (sigma @ (reached - optimum) + 0.7 * metric.apply(reached - anchor))
    closed = anchored_minimum(sigma, metric, 0.7, optimum, anchor)
    assert_equal(reached, closed, 1e-6)


@given(
    seed=st.integers(0, 500),
    num_examples=st.integers(2, 30),
    strength=st.floats(1e-3, 1e3),
    name=st.sampled_from(METRICS),
)
@settings(max_examples=60, deadline=None)
def test_the_interpolation_is_the_closed_form(seed: int, num_examples: int, strength: float, name: str) -> None:
    gradients, optimum, anchor = problem(seed, num_examples)
    metric, sigma = metric_of(name, anchor), moment(gradients)
    closed = anchored_minimum(sigma, metric, strength, optimum, anchor)
    pairs = eigenpairs(sigma, metric)
    expected = interpolated(pairs, metric, strength, optimum, anchor)
    assert_equal(metric.coordinates(pairs.vectors, closed), expected, 1e-6)
    shares = measured_shares(pairs, metric, strength, optimum, anchor, closed)
    assert_equal(shares.moved, shares.predicted * shares.distance, 1e-6)
    # A shift that no anchor holds may be hundreds long, and is rounded off to a square root of its last digits.
    assert shares.outside < 1e-6 * max(1.0, float((closed - anchor).norm()))
    if name == "identity":  # nothing is hidden, so the coordinates are the whole vector
        assert_equal(pairs.vectors @ expected, closed, 1e-6)


def test_corollary_2_weighs_by_squared_singular_values() -> None:
    gradients, optimum, anchor = problem(5, 5)
    sigma = moment(gradients)
    _, singular, directions = torch.linalg.svd(gradients / len(gradients) ** 0.5, full_matrices=True)
    closed = anchored_minimum(sigma, identity_metric(SIZE), 0.3, optimum, anchor)
    weight = torch.zeros(SIZE, dtype=torch.float64)
    weight[:5] = singular**2 / (singular**2 + 0.3)
    expected = weight * (directions @ optimum) + (1 - weight) * (directions @ anchor)
    assert_equal(directions @ closed, expected)
    # The seven directions that no example feels stay where they were.
    assert_equal(directions[5:] @ closed, directions[5:] @ anchor)


@pytest.mark.parametrize("name", METRICS)
def test_directions_without_information_are_untouched_and_others_are_found_to_follow(name: str) -> None:
    gradients, optimum, anchor = problem(6, 4)
    metric, sigma = metric_of(name, anchor), moment(gradients)
    pairs = eigenpairs_of_gradients(gradients, metric)
    end = anchored_minimum(sigma, metric, 0.5, optimum, anchor)
    shares = measured_shares(pairs, metric, 0.5, optimum, anchor, end)
    assert_equal(shares.measured, shares.predicted, 1e-6)
    assert bool(((shares.predicted > 0) & (shares.predicted < 1)).all())
    assert shares.outside < 1e-7
    # A step along a direction that no example feels is seen, and along no informed direction.
    empty = eigenpairs(sigma, metric).vectors[:, -1]
    pushed = measured_shares(pairs, metric, 0.5, optimum, anchor, end + 0.25 * empty)
    assert pushed.outside == pytest.approx(0.25)
    assert_equal(pushed.moved, shares.moved)


@pytest.mark.parametrize("name", METRICS)
def test_the_slope_at_the_start_gives_the_optimum(name: str) -> None:
    gradients, optimum, anchor = problem(7, 6)
    metric = metric_of(name, anchor)
    pairs = eigenpairs_of_gradients(gradients, metric)
    found = optimum_from_slope(pairs, anchor, moment(gradients) @ (anchor - optimum))
    assert_equal(metric.coordinates(pairs.vectors, found), metric.coordinates(pairs.vectors, optimum))


def test_shares_at_the_ends() -> None:
    values = torch.tensor([2.0, 0.0], dtype=torch.float64)
    assert predicted_share(values, 0.0).tolist() == [1.0, 0.0]
    assert predicted_share(values, 1e12)[0] < 1e-11
