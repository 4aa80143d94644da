"""Every metric of the decoupled pull against the minimisation that defines it, solved densely in float64."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from peso.config import ProximalConfig, dump_config, make_config
from peso.errors import ConfigError
from peso.methods.anchor_metrics import METRIC_PULLS
from peso.methods.base import Part
from peso.methods.diagonal_pull import RIDGE, DiagonalPull, curvature_weights, rarity_weights
from peso.methods.kronecker_pull import kronecker_pull
from peso.methods.peso import Peso
from peso.methods.pull import Pull
from peso.types import HeldParts, MetricName
from views import StoredView

METRICS: tuple[MetricName, ...] = ("identity", "fisher", "past_fisher", "kronecker", "counts")
NAMES = [("x.lora_A", "x.lora_B", "y.lora_A"), ("y.lora_B",)]
SHAPES = {"x.lora_A": (2, 6), "x.lora_B": (6, 2), "y.lora_A": (2, 6), "y.lora_B": (4, 2)}
ROWS, WIDTH = 5, 3


def matrices(seed: int, spread: float = 1.0) -> list[Tensor]:
    """A and B of two modules, laid out by size: 6 to 6 and 6 to 4 features at rank 2."""
    generator = torch.Generator().manual_seed(seed)
    groups = [torch.randn(len(names), math.prod(SHAPES[names[0]]), generator=generator) for names in NAMES]
    return [one.double() * spread for one in groups]


def second_moment(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(size + 2, size, generator=generator).double() * torch.logspace(-1, 1, size).double()
    return samples.T @ samples / len(samples)


def measured(seed: int) -> StoredView:
    generator = torch.Generator().manual_seed(seed)
    lora = [torch.randn(one.shape, generator=generator).double().square() for one in matrices(0)]
    tables = [torch.randn(2, ROWS * WIDTH, generator=generator).double().square()]
    moments = {
        "x": (second_moment(6, seed), second_moment(6, seed + 1)),
        "y": (second_moment(6, seed + 2), second_moment(4, seed + 3)),
    }
    counts = [torch.randint(0, 9, (2, ROWS), generator=generator).double()]
    return StoredView([], lora, tables, moments, counts, names=NAMES)


def anchors_of(seed: int) -> dict[Part, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed + 7)
    return {"lora": matrices(seed), "token_rows": [torch.randn(2, ROWS * WIDTH, generator=generator).double()]}


def softmax_metric(anchor: Tensor) -> Tensor:
    q = torch.softmax(anchor, dim=0)
    return len(q) * (torch.diag(q) - torch.outer(q, q))


def dense(metric: MetricName, part: Part, anchors: dict[Part, list[Tensor]], view: StoredView) -> list[list[Tensor]]:
    """H of every group, written out plainly."""
    names = view.group_names(part)
    layout = list(zip(names, anchors[part], strict=True))
    if metric == "identity":
        return [[torch.eye(len(one)).double() for one in groups] for _, groups in layout]
    if metric == "counts" and part == "lora":
        return [[softmax_metric(one) for one in groups] for _, groups in layout]
    if metric == "counts":
        tables = []
        for counts in view.counts[0]:
            typical = counts.sum() / (counts > 0).sum()
            weights = 1 / (1 + counts / typical)
            tables.append(torch.diag((weights / weights.mean()).repeat_interleave(WIDTH)))
        return [tables]
    if metric in ("fisher", "past_fisher") or part == "token_rows":
        fisher = view.fisher if part == "lora" else view.fisher_of_rows
        raw = {
            name: torch.diag(one)
            for own, f in zip(names, fisher, strict=True)
            for name, one in zip(own, f, strict=True)
        }
    else:
        flat = {name: one for own, groups in layout for name, one in zip(own, groups, strict=True)}
        raw = {}
        for module, (inputs, outputs) in view.moments.items():
            a, b = flat[f"{module}.lora_A"].view(2, -1), flat[f"{module}.lora_B"].view(-1, 2)
            raw[f"{module}.lora_A"] = torch.kron(b.T @ outputs @ b, inputs)
            raw[f"{module}.lora_B"] = torch.kron(outputs, a @ inputs @ a.T)
    result = []
    for own, _ in layout:
        matrices_of_size = []
        for name in own:
            of_module = [matrix for other, matrix in raw.items() if other.split(".")[0] == name.split(".")[0]]
            mean = sum(matrix.trace() for matrix in of_module) / sum(len(matrix) for matrix in of_module)
            identity = torch.eye(len(raw[name])).double()
            matrices_of_size.append((raw[name] / mean + RIDGE * identity) / (1 + RIDGE))
        result.append(matrices_of_size)
    return result


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(METRICS), st.integers(0, 10**6), st.floats(-4, 4))
def test_every_metric_is_its_proximal_operator(metric: MetricName, seed: int, exponent: float) -> None:
    anchors, view, strength, rate = anchors_of(seed), measured(seed), 10**exponent, 0.02
    pulls = METRIC_PULLS[metric](anchors, view, strength)
    assert set(pulls) == {"lora", "token_rows"}
    looked_at = view.block - 1 if metric == "past_fisher" else view.block
    assert set(view.asked) <= {looked_at}
    generator = torch.Generator().manual_seed(seed + 1)
    for part, pull in pulls.items():
        current = [one + torch.randn(one.shape, generator=generator) for one in anchors[part]]
        start = [one.clone() for one in current]
        pull(current, rate)
        for groups in zip(current, start, anchors[part], dense(metric, part, anchors, view), strict=True):
            for v, u, a, h in zip(*groups, strict=True):
                expected = a + torch.linalg.solve(torch.eye(len(h)).double() + rate * strength * h, u - a)
                torch.testing.assert_close(v, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_rate_zero_moves_nothing_and_an_infinite_strength_gives_the_anchor(metric: MetricName) -> None:
    anchors, view = anchors_of(1), measured(1)
    for part, pull in METRIC_PULLS[metric](anchors, view, 1e13).items():
        current = [one + torch.randn(one.shape) for one in anchors[part]]
        start = [one.clone() for one in current]
        pull(current, 0.0)
        assert all(torch.equal(one, before) for one, before in zip(current, start, strict=True))
        pull(current, 1.0)
        for one, anchor in zip(current, anchors[part], strict=True):
            shift = one - anchor
            if metric == "counts" and part == "lora":  # a softmax does not see what all elements share
                shift = shift - shift.mean(1, keepdim=True)
            assert float(shift.abs().max()) < 1e-9


@pytest.mark.parametrize("metric", METRICS)
def test_float32_keeps_the_operator(metric: MetricName) -> None:
    """At the sizes and distances of training."""
    wide, narrow = anchors_of(3), anchors_of(3)
    narrow = {part: [one.float() for one in groups] for part, groups in wide.items()}
    view, view32 = measured(3), measured(3)
    view32.fisher, view32.fisher_of_rows, view32.counts = (
        [one.float() for one in kept] for kept in (view.fisher, view.fisher_of_rows, view.counts)
    )
    view32.moments = {name: (x.float(), g.float()) for name, (x, g) in view.moments.items()}
    exact, rounded = METRIC_PULLS[metric](wide, view, 3.0), METRIC_PULLS[metric](narrow, view32, 3.0)
    for part in exact:
        current = [one + 1e-3 * torch.randn(one.shape).double() for one in narrow[part]]
        ours = [one.float() for one in current]
        exact[part](current, 0.1)
        rounded[part](ours, 0.1)
        for one, other in zip(ours, current, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-6)


def resting_distance(pull: Callable[[list[Tensor], float], None], anchors: list[Tensor], rate: float) -> float:
    """How far, root mean square, a push at full rate for ever takes parameters from the anchor."""
    generator = torch.Generator().manual_seed(5)
    current = [one.clone() for one in anchors]
    push = [torch.randint(0, 2, one.shape, generator=generator) * 2.0 - 1 for one in anchors]
    for _ in range(1000):
        for one, direction in zip(current, push, strict=True):
            one += rate * direction
        pull(current, rate)
    moved = torch.cat([(one - anchor).flatten() for one, anchor in zip(current, anchors, strict=True)])
    return float(moved.square().mean().sqrt())


def curvature_pull(rank: int, width: int, strength: float) -> tuple[Pull, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    anchor = [torch.randn(2, rank * width, generator=generator)]
    squares = [1e-9 * torch.rand(2, rank * width, generator=generator)]
    weights = curvature_weights(squares, [("x.lora_A", "x.lora_B")])
    one = DiagonalPull(anchor[0], weights[0], strength)
    return lambda current, rate: one(current[0], rate), anchor


def factored_pull(rank: int, width: int, strength: float) -> tuple[Pull, list[Tensor]]:
    """Half of the directions nine times as active as the others; A and B orthonormal, so that only the size differs."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.linalg.qr(torch.randn(width, rank, generator=generator))[0] for _ in range(2))
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    moment = turn @ torch.diag(torch.tensor([0.2, 1.8]).repeat(width // 2)) @ turn.T
    anchor = [torch.stack([a.T.flatten(), b.flatten()])]
    moments = {"x": (moment * width**2, moment / rank**3)}
    return kronecker_pull(anchor, [("x.lora_A", "x.lora_B")], moments, strength), anchor


@pytest.mark.parametrize("make", [curvature_pull, factored_pull])
def test_the_resting_distance_does_not_depend_on_size_or_rate(
    make: Callable[[int, int, float], tuple[Pull, list[Tensor]]],
) -> None:
    small = resting_distance(*make(4, 128, 5.0), 0.02)
    wide = resting_distance(*make(4, 512, 5.0), 0.02)
    faster = resting_distance(*make(4, 128, 5.0), 0.04)
    ranked = resting_distance(*make(16, 128, 5.0), 0.02)
    stronger = resting_distance(*make(4, 128, 10.0), 0.02)
    assert wide == pytest.approx(small, rel=0.1)
    assert faster == pytest.approx(small, rel=0.02)
    assert ranked == pytest.approx(small, rel=0.1)
    assert stronger == pytest.approx(small / 2, rel=0.05)


def test_the_identity_rests_at_one_over_the_strength() -> None:
    anchor = [torch.randn(1, 50)]
    one = DiagonalPull(anchor[0], torch.ones(1, 1), 5.0)
    assert resting_distance(lambda now, rate: one(now[0], rate), anchor, 0.02) == pytest.approx(0.2, rel=0.01)


def test_curvature_weights_have_mean_one_over_a_module_and_a_floor() -> None:
    """By hand: A (0, 2), B (4, 2) have mean 2; a module without gradients is anchored evenly."""
    squares = [torch.tensor([[0.0, 2.0], [4.0, 2.0], [0.0, 0.0]])]
    (weights,) = curvature_weights(squares, [("x.lora_A", "x.lora_B", "y.lora_B")])
    expected = torch.tensor([[0.1, 1.1], [2.1, 1.1], [1.1, 1.1]]) / 1.1
    torch.testing.assert_close(weights, expected)
    assert float(weights[:2].mean()) == pytest.approx(1.0)


def test_rare_rows_stay_nearer() -> None:
    """By hand: codes shown 0, 1 and 3 times; 2 is typical, so the anchor's shares are 1, 2/3 and 2/5."""
    weights = rarity_weights(torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]))
    shares = torch.tensor([1.0, 2 / 3, 2 / 5])
    torch.testing.assert_close(weights[0], shares / shares.mean())
    torch.testing.assert_close(weights[1], torch.ones(3))


def test_a_strength_that_the_block_chooses_keeps_the_metric() -> None:
    chosen = Peso(ProximalConfig(strength="auto", metric="identity")).candidates()
    anchor = torch.zeros(1, 3)
    for strength, method in chosen.items():
        pulls = method.pulls({"lora": [anchor], "token_rows": [anchor]}, StoredView([]))
        current = torch.tensor([[1.0, 1.0, 1.0]])  # a shift, which only a softmax would leave alone
        if pulls:
            pulls["lora"]([current], 1.0)
        torch.testing.assert_close(current, torch.full((1, 3), 1 / (1 + strength)))


@pytest.mark.parametrize(
    ("held", "parts"), [("all", {"lora", "token_rows"}), ("adapter", {"lora"}), ("token_rows", {"token_rows"})]
)
@pytest.mark.parametrize("metric", ["softmax", *METRICS])
def test_either_part_may_be_held_alone(metric: MetricName, held: HeldParts, parts: set[str]) -> None:
    pulls = Peso(ProximalConfig(metric=metric, held=held)).pulls(anchors_of(1), measured(1))
    assert set(pulls) == parts


def test_only_the_decoupled_form_has_parts_to_hold() -> None:
    with pytest.raises(ConfigError, match=r'^proximal\.held "adapter" needs proximal\.form "decoupled"'):
        make_config(None, {"proximal": {"form": "paper", "held": "adapter"}})


@pytest.mark.parametrize("form", ["paper", "official", "normalised", "per_rank", "l2"])
def test_only_the_decoupled_form_takes_a_metric(form: str) -> None:
    with pytest.raises(ConfigError, match=r'^proximal\.metric "fisher" needs proximal\.form "decoupled"'):
        make_config(None, {"proximal": {"form": form, "metric": "fisher"}})
    assert make_config(None, {"proximal": {"form": form, "metric": "softmax"}}).proximal.form == form


def test_a_metric_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"proximal\.metric"):
        make_config(None, {"proximal": {"metric": "hessian"}})


def test_the_papers_metric_goes_unnamed(tmp_path: Path) -> None:
    """A run's id is that of its written configuration: naming the default changes none, another metric does."""
    plain, named = make_config(), make_config(None, {"proximal": {"metric": "softmax"}})
    other = make_config(None, {"proximal": {"metric": "counts"}})
    assert plain.model_dump(mode="json") == named.model_dump(mode="json")
    assert plain.update_part()["proximal"] == {"form": "decoupled", "strength": 3.0, "share": "auto"}
    assert other.update_part()["proximal"] == {
        "form": "decoupled",
        "strength": 3.0,
        "share": "auto",
        "metric": "counts",
    }
    assert other.base_part() == plain.base_part()
    for config in (plain, other):
        (tmp_path / "config.toml").write_text(dump_config(config))
        assert make_config(tmp_path / "config.toml") == config
