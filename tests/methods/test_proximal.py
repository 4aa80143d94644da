"""The proximal term: value and gradient against float64, finite differences and the quadratic form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from peso.methods.proximal import (
    PROXIMAL_TERMS,
    l2_term,
    normalised_term,
    official_term,
    paper_term,
    softmax_kl,
    squared_distance,
)


def plain_kl(current: Tensor, anchor: Tensor) -> Tensor:
    """Eq. 12 as written, in float64, where cancellation is harmless at these sizes."""
    log_p = torch.log_softmax(current.double(), dim=1)
    log_q = torch.log_softmax(anchor.double(), dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def groups(size: int = 64, num_groups: int = 3, step: float = 1e-2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    anchor = 0.1 * torch.randn(num_groups, size, generator=generator, dtype=torch.float64)
    return anchor + step * torch.randn(num_groups, size, generator=generator, dtype=torch.float64), anchor


def test_value_by_hand() -> None:
    # v_prev = (0, 0) gives q = (1/2, 1/2); v = (log 3, 0) gives p = (3/4, 1/4).
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    value = softmax_kl(torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2))
    assert value.item() == pytest.approx(expected, rel=1e-6)


@given(step=st.sampled_from([1e-2, 0.1, 1.0, 5.0]), seed=st.integers(0, 99), size=st.sampled_from([2, 17, 300]))
@settings(max_examples=40, deadline=None)
def test_equals_the_formula_in_float64(step: float, seed: int, size: int) -> None:
    current, anchor = groups(size, step=step, seed=seed)
    torch.testing.assert_close(softmax_kl(current, anchor), plain_kl(current, anchor), rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize("step", [1e-5, 1e-4, 1e-3, 1e-2])
def test_float32_keeps_three_digits_where_the_plain_form_cancels(step: float) -> None:
    current, anchor = groups(16_384, step=step)
    current, anchor = current.float(), anchor.float()
    exact = softmax_kl(current.double(), anchor.double())
    torch.testing.assert_close(softmax_kl(current, anchor).double(), exact, rtol=1e-3, atol=0)


def test_plain_float32_form_would_fail() -> None:
    current, anchor = groups(16_384, step=1e-4)
    log_p, log_q = torch.log_softmax(current.float(), 1), torch.log_softmax(anchor.float(), 1)
    plain = (log_p.exp() * (log_p - log_q)).sum(1)
    exact = softmax_kl(current, anchor)
    assert ((plain.double() - exact).abs() / exact > 0.1).any()


@pytest.mark.parametrize("name", sorted(PROXIMAL_TERMS))
def test_gradient_against_finite_differences(name: str) -> None:
    current, anchor = groups(12, num_groups=2, step=0.3)
    current.requires_grad_()
    term = PROXIMAL_TERMS[name]  # type: ignore[index]
    assert torch.autograd.gradcheck(lambda v: term([anchor], 1.0)([v]), [current])


def test_no_gradient_flows_into_the_anchor() -> None:
    current, anchor = groups()
    anchor.requires_grad_()
    assert not softmax_kl(current, anchor).requires_grad


def test_quadratic_form_for_small_steps() -> None:
    current, anchor = groups(200, step=1e-4)
    q = torch.softmax(anchor, 1)
    delta = current - anchor
    variance = (q * delta.square()).sum(1) - (q * delta).sum(1).square()
    torch.testing.assert_close(softmax_kl(current, anchor), 0.5 * variance, rtol=1e-3, atol=0)


def test_zero_distance_has_zero_value_and_gradient() -> None:
    _, anchor = groups()
    current = anchor.clone().requires_grad_()
    value = paper_term([anchor])([current])
    (gradient,) = torch.autograd.grad(value, current)
    assert value.item() == 0
    assert gradient.abs().max().item() == 0


def test_a_shift_of_a_whole_group_costs_nothing() -> None:
    _, anchor = groups()
    assert softmax_kl(anchor + 3.0, anchor).abs().max().item() < 1e-12


def test_half_precision_input_is_computed_in_float32() -> None:
    current, anchor = groups(step=0.1)
    value = softmax_kl(current.bfloat16(), anchor.bfloat16())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, softmax_kl(current.bfloat16().float(), anchor.bfloat16().float()))


def test_scalings_relate_as_documented() -> None:
    small, large = groups(32, 4, seed=1), groups(128, 2, seed=2)
    current, anchor = [small[0], large[0]], [small[1], large[1]]
    kl_small, kl_large = softmax_kl(*small).sum(), softmax_kl(*large).sum()
    torch.testing.assert_close(paper_term(anchor)(current), kl_small + kl_large)
    # 6 groups are 3 modules: the mean over modules of KL(A) + KL(B).
    torch.testing.assert_close(official_term(anchor)(current), (kl_small + kl_large) / 3)
    torch.testing.assert_close(normalised_term(anchor)(current), 32 * kl_small + 128 * kl_large)
    torch.testing.assert_close(
        l2_term(anchor)(current), 0.5 * (squared_distance(*small).sum() + squared_distance(*large).sum())
    )


def test_normalised_is_about_half_the_squared_distance_at_every_width() -> None:
    for size in (64, 1024, 16_384):
        current, anchor = groups(size, step=1e-3)
        ratio = normalised_term([anchor])([current]) / l2_term([anchor])([current])
        assert ratio.item() == pytest.approx(1.0, rel=0.1)


def test_stacked_groups_equal_a_loop_over_matrices() -> None:
    current, anchor = groups(50, 7)
    one_by_one = torch.stack([softmax_kl(v[None], u[None]).squeeze() for v, u in zip(current, anchor, strict=True)])
    torch.testing.assert_close(softmax_kl(current, anchor), one_by_one, rtol=0, atol=0)


@pytest.mark.parametrize("step", [1e-5, 1e-3, 0.3])
def test_float32_gradient_is_the_closed_form_in_float64(step: float) -> None:
    current, anchor = groups(5_000, 60, step=step)  # more than one piece
    current, anchor = current.float().requires_grad_(), anchor.float()
    exact = current.detach().double()
    log_p, log_q = torch.log_softmax(exact, 1), torch.log_softmax(anchor.double(), 1)
    kl = (log_p.exp() * (log_p - log_q)).sum(1, keepdim=True)
    expected = log_p.exp() * (log_p - log_q - kl)
    (gradient,) = torch.autograd.grad(softmax_kl(current, anchor).sum(), current)
    assert (gradient - expected).norm() < 1e-3 * expected.norm()


def test_each_group_gets_its_own_share_of_the_outer_gradient() -> None:
    current, anchor = groups(40, 3, step=0.1)
    current.requires_grad_()
    outer = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
    (whole,) = torch.autograd.grad(softmax_kl(current, anchor) @ outer, current)
    (plain,) = torch.autograd.grad(softmax_kl(current, anchor).sum(), current)
    torch.testing.assert_close(whole, plain * outer[:, None])


def test_a_term_reads_the_matrices_anew_at_every_call() -> None:
    current, anchor = groups()
    term = normalised_term([anchor])
    before = term([current])
    current += 0.01 * torch.randn_like(current)
    assert term([current]) != before
    torch.testing.assert_close(term([current]), normalised_term([anchor])([current]), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(PROXIMAL_TERMS))
def test_the_gradient_that_training_adds_is_that_of_the_value(name: str) -> None:
    """Times the strength, on top of what is there, for several sizes, the larger of which are more than one piece."""
    small, large = groups(64, 4, step=0.1), groups(60_000, 9, step=0.1, seed=1)
    current, anchor = [small[0], large[0]], [small[1], large[1]]
    term = PROXIMAL_TERMS[name](anchor, 0.7)  # type: ignore[index]
    leaves = [one.clone().requires_grad_() for one in current]
    expected = torch.autograd.grad(PROXIMAL_TERMS[name](anchor, 1.0)(leaves), leaves)  # type: ignore[index]
    gradients = [torch.ones_like(one) for one in current]
    term.add_gradient(current, gradients)
    for gradient, one in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, 1 + 0.7 * one)
    torch.testing.assert_close(term(current), 0.7 * PROXIMAL_TERMS[name](anchor, 1.0)(current))  # type: ignore[index]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_agrees_with_the_cpu() -> None:
    current, anchor = groups(step=0.1)
    expected = normalised_term([anchor])([current])
    value = normalised_term([anchor.cuda()])([current.cuda()])
    torch.testing.assert_close(value.cpu(), expected)
