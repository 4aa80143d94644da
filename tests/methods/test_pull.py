"""The decoupled proximal step against the minimisation that defines it."""

import math

import pytest
import torch
from torch import Tensor

from peso.config import ProximalConfig
from peso.lm.parameters import FlatParameters
from peso.methods.base import Part
from peso.methods.peso import Peso
from peso.methods.proximal import softmax_kl
from peso.methods.pull import Pull, SoftmaxPull, softmax_pull
from peso.training.optimisation import FlatOptimizer
from peso.training.pulled_steps import PulledSteps
from views import StoredView


def groups(scale: float = 0.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    anchor = torch.randn(3, 40, generator=generator, dtype=torch.float64) * scale
    return anchor, anchor + torch.randn(3, 40, generator=generator, dtype=torch.float64) * 0.1


def solve(anchor: Tensor, current: Tensor, weight: float) -> Tensor:
    """The minimiser by dense linear algebra, group by group."""
    rows = []
    for a, u in zip(anchor, current, strict=True):
        q = torch.softmax(a, dim=0)
        metric = torch.diag(q) - torch.outer(q, q)
        size = len(a)
        rows.append(a + torch.linalg.solve(torch.eye(size, dtype=a.dtype) + weight * size * metric, u - a))
    return torch.stack(rows)


@pytest.mark.parametrize("strength", [1e-3, 3.0, 1e4])
def test_it_is_the_proximal_operator(strength: float) -> None:
    anchor, current = groups()
    expected = solve(anchor, current, 0.01 * strength)
    SoftmaxPull(anchor, strength)(current, 0.01)
    torch.testing.assert_close(current, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("c", [0.0, 1e-8, 1e-4, 1e-2, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("scale", [0.02, 3.0, 30.0])
def test_float32_keeps_the_formula_to_rounding(scale: float, c: float) -> None:
    generator = torch.Generator().manual_seed(1)
    anchor = torch.randn(3, 2000, generator=generator) * scale
    current = anchor + torch.randn(3, 2000, generator=generator) * 1e-3 + 0.05
    exact_anchor, difference = anchor.double(), current.double() - anchor.double()
    q = torch.softmax(exact_anchor, dim=1)
    kept = 1 / (1 + c * 2000 * q)
    shift = (q * kept * difference).sum(1, keepdim=True) / (q * kept).sum(1, keepdim=True)
    expected = exact_anchor + shift + (difference - shift) * kept
    start = current.clone()
    pull = SoftmaxPull(anchor, c)
    pull(current, 1.0)
    assert float((current.double() - expected).abs().max()) <= 2e-7 * float(start.abs().max())
    if c == 0.0:
        assert torch.equal(current, start)
    pull(start, 1.0)
    assert torch.equal(current, start), "a second call must not see what the first left in its buffers"


def test_an_element_without_probability_stays() -> None:
    """By hand: q = (0.5, 0.5, 0), c = 1: N q / (1 + N q) = 0.6 of the way to the first two's mean shift, 2."""
    anchor = torch.tensor([[0.0, 0.0, -1000.0]])
    current = torch.tensor([[1.0, 3.0, -990.0]])
    SoftmaxPull(anchor, 1.0)(current, 1.0)
    torch.testing.assert_close(current, torch.tensor([[1.6, 2.4, -990.0]]))


def test_a_small_step_follows_the_gradient_of_the_divergence() -> None:
    anchor, _ = groups()
    current = (anchor + 1e-4 * torch.randn(anchor.shape, dtype=anchor.dtype)).requires_grad_()
    (gradient,) = torch.autograd.grad(anchor.shape[1] * softmax_kl(current, anchor).sum(), current)
    moved = current.detach().clone()
    SoftmaxPull(anchor, 1e-3)(moved, 1.0)
    torch.testing.assert_close((current.detach() - moved) / 1e-3, gradient, rtol=1e-2, atol=1e-7)


def test_an_infinite_strength_leaves_only_what_a_softmax_cannot_see() -> None:
    anchor, current = groups()
    SoftmaxPull(anchor, 1e12)(current, 1.0)
    shift = current - anchor
    torch.testing.assert_close(shift, shift.mean(1, keepdim=True).expand_as(shift), rtol=0, atol=1e-9)
    assert float(softmax_kl(current, anchor).max()) < 1e-18


@pytest.mark.parametrize("size", [64, 4096])
@pytest.mark.parametrize("rate", [1e-3, 4e-3])
def test_at_balance_the_distance_is_one_over_the_strength(size: int, rate: float) -> None:
    """Adam pushes one way at full rate for ever; the strength alone decides where it comes to rest."""
    anchor = torch.randn(1, size) * 0.02
    current, pull = anchor.clone(), SoftmaxPull(anchor, 5.0)
    push = torch.where(torch.arange(size) % 2 == 0, 1.0, -1.0)
    for _ in range(3000):
        current += rate * push
        pull(current, rate)
    distance = float((current - anchor).norm()) / math.sqrt(size)
    assert distance == pytest.approx(1 / 5.0, rel=0.05)


def test_strength_zero_and_the_other_forms_do_not_pull() -> None:
    anchor, view = [torch.zeros(2, 8)], StoredView([])
    anchors: dict[Part, list[Tensor]] = {"lora": anchor, "token_rows": anchor}
    assert not Peso(ProximalConfig(strength=0.0)).pulls(anchors, view)
    assert not Peso(ProximalConfig(form="paper")).pulls(anchors, view)
    assert Peso(ProximalConfig()).penalty(anchor, view) is None
    assert Peso(ProximalConfig()).pulls(anchors, view).keys() == anchors.keys()


def optimizer_of(values: torch.Tensor) -> tuple[FlatParameters, FlatOptimizer]:
    part = FlatParameters([("lora.weight", torch.nn.Parameter(values.clone()))])
    optimizer = FlatOptimizer({"lora": part}, {"lora": 0.1}, weight_decay=0.0, num_steps=400, warmup_fraction=0.0)
    return part, optimizer


def test_the_pull_comes_after_eight_steps_and_at_the_end() -> None:
    """34 steps: after every eighth and the last, each with the rates since the one before; the first and the fifth
    pull are measured.
    """
    part, optimizer = optimizer_of(torch.zeros(2, 8))
    part.gradient.fill_(1.0)
    rates = [optimizer.rates()["lora"]]
    given: list[float] = []

    def halve(rates: dict[str, float]) -> None:
        given.append(rates["lora"])
        part.data.detach().mul_(0.5)

    pulled = PulledSteps(optimizer, halve)
    ratios = []
    for number in range(1, 35):
        ratios.append(pulled.step(is_last=number == 34))
        rates.append(optimizer.rates()["lora"])
    moved = [sum(rates[start : min(start + 8, 34)]) for start in range(0, 34, 8)]
    assert given == pytest.approx(moved)
    measured = {number: float(ratio) for number, ratio in enumerate(ratios, start=1) if ratio is not None}
    place = 0.0
    for way in moved[:-1]:
        place = (place + way) / 2
    assert measured == pytest.approx({8: 0.5, 34: (place + moved[-1]) / 2 / moved[-1]}, rel=1e-4)


def test_one_pull_for_eight_steps_is_eight_pulls() -> None:
    """Where an epoch ends, next to how far the pull moved it."""
    generator = torch.Generator().manual_seed(0)
    anchor = [torch.randn(3, 40, generator=generator)]
    gradients = 0.3 + torch.randn(200, 120, generator=generator)
    ends = []
    for every in (1, 8, 0):
        part, optimizer = optimizer_of(anchor[0])
        optimizer._peaks["lora"] = 1e-3
        pull = softmax_pull(anchor, 3.0)

        def towards(rates: dict[str, float], part: FlatParameters = part, pull: Pull = pull) -> None:
            pull([part.data.detach().view(3, 40)], rates["lora"])

        pulled = PulledSteps(optimizer, towards)
        for gradient in gradients:
            part.gradient.copy_(gradient)
            if every:
                pulled.step(is_last=every == 1)
            else:
                optimizer.step()
        ends.append(part.data.detach().clone())
    each, eighth, free = ends
    assert float((each - eighth).norm()) < 0.05 * float((each - free).norm())
