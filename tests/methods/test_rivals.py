"""Rival methods, moment by moment, on cases small enough to do by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from peso.config import EwcConfig, OLoraConfig, OrthogonalConfig, OutputKlConfig, ProximalConfig, ReplayConfig
from peso.data.examples import targets_of_block
from peso.lm.low_rank import LowRank, summed
from peso.methods.ewc import Ewc
from peso.methods.inf_lora import designed_directions
from peso.methods.o_lora import OLora
from peso.methods.orthogonal import Orthogonal
from peso.methods.output_kl import OutputKl
from peso.methods.peso import Peso
from peso.methods.proximal import by_rank, softmax_kl
from peso.methods.replay import Replay
from peso.methods.retrain import Retrain
from views import StoredView
from worlds import tiny_dataset


def low_rank(a: list[list[float]], b: list[list[float]]) -> LowRank:
    return LowRank({"layer": torch.tensor(a)}, {"layer": torch.tensor(b)})


def groups_of(state: LowRank) -> list[Tensor]:
    return [torch.stack([state.a["layer"].flatten(), state.b["layer"].flatten()])]


def test_orthogonality_by_hand() -> None:
    """A A_i^T is [[1, 0], [0, 4]] and [[3, 0], [0, 0]]; B^T B_i is zero but for one 2: (17 + 9 + 4) / 2."""
    past = [
        low_rank([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], [[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]),
        low_rank([[3.0, 0.0, 0.0], [0.0, 0.0, 7.0]], [[0.0, 0.0], [0.0, 0.0], [5.0, 5.0]]),
    ]
    now = low_rank([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], [[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    term = Orthogonal(OrthogonalConfig(strength=0.5)).penalty(groups_of(past[-1]), StoredView(past))
    assert term is not None
    current = groups_of(now)[0].requires_grad_(True)
    value = term([current])
    assert float(value.detach()) == pytest.approx(0.5 * (17 + 9 + 4) / 2)
    value.backward()
    assert current.grad is not None
    wanted_b = 0.5 / 2 * 2 * torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 0.0]])  # d/dB ||B^T B_i||^2 = 2 B_i (B_i^T B)
    torch.testing.assert_close(current.grad[1], wanted_b.flatten())


def test_o_lora_s_overlap_by_hand() -> None:
    """A A_i^T as above, without B: 17 + 9."""
    past = [
        low_rank([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], [[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]),
        low_rank([[3.0, 0.0, 0.0], [0.0, 0.0, 7.0]], [[0.0, 0.0], [0.0, 0.0], [5.0, 5.0]]),
    ]
    now = low_rank([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], [[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    term = OLora(OLoraConfig(strength=0.5)).penalty(groups_of(now), StoredView(past))
    assert term is not None
    gradients = [torch.zeros_like(one) for one in groups_of(now)]
    assert float(term(groups_of(now))) == pytest.approx(0.5 * (17 + 9))
    term.add_gradient(groups_of(now), gradients)
    wanted_a = torch.tensor([[1.0 + 9.0, 0.0, 0.0], [0.0, 2 * 4.0, 0.0]])  # 0.5 x 2 A sum_i A_i^T A_i
    torch.testing.assert_close(gradients[0][0], wanted_a.flatten())
    assert float(gradients[0][1].abs().max()) == 0


def test_ewc_by_hand() -> None:
    """Fisher of mean 2 is scaled to mean 1: (1/2) 10 (0.5 x 1 + 1.5 x 4)."""
    anchor = [torch.tensor([[0.0, 1.0]])]
    view = StoredView([low_rank([[0.0]], [[1.0]])], fisher=[torch.tensor([[1.0, 3.0]])])
    term = Ewc(EwcConfig(strength=10.0)).penalty(anchor, view)
    assert term is not None
    assert float(term([torch.tensor([[1.0, 3.0]])])) == pytest.approx(0.5 * 10 * (0.5 * 1 + 1.5 * 4))
    assert float(term(anchor)) == 0
    assert view.asked == [0], "what the block before depended on"


def test_the_output_divergence_is_its_formula() -> None:
    """Against softmaxes written out in float64, and its gradient against differences; what was read is forgotten."""
    generator = torch.Generator().manual_seed(0)
    before = LowRank(
        {"layer": torch.randn(2, 5, generator=generator).double()},
        {"layer": torch.randn(5, 2, generator=generator).double()},
    )
    passes = [torch.randn(tokens, 5, generator=generator).double() for tokens in (4, 3)]
    view = StoredView([before], inputs={"layer": list(passes)})
    term = OutputKl(OutputKlConfig(strength=0.7), scale=2.0).penalty(groups_of(before), view)
    assert term is not None

    def written_out(flat: Tensor) -> Tensor:
        a, b, x = flat[0].view(2, 5), flat[1].view(5, 2), torch.cat(passes)
        now = (2.0 * x @ a.T @ b.T).log_softmax(1)
        then = (2.0 * x @ before.a["layer"].T @ before.b["layer"].T).log_softmax(1)
        return 0.7 * 5 * (now.exp() * (now - then)).sum(1).mean()

    current = groups_of(before)[0] + 0.3 * torch.randn(2, 10, generator=generator).double()
    current.requires_grad_(True)
    value = term([current])
    assert float(value.detach()) == pytest.approx(float(written_out(current.detach())), rel=1e-9)
    assert view.inputs == {"layer": []}
    (gradient,) = torch.autograd.grad(value, [current])
    direction = torch.randn(2, 10, generator=generator).double()
    step = 1e-6 * direction
    difference = written_out(current.detach() + step) - written_out(current.detach() - step)
    assert float(difference) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-6)
    view.inputs["layer"] += passes
    assert float(term(groups_of(before))) == pytest.approx(0, abs=1e-12)
    assert OutputKl(OutputKlConfig(strength=0), scale=2.0).penalty(groups_of(before), view) is None


def test_per_rank_groups_are_rows_of_a_and_columns_of_b() -> None:
    state = low_rank([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    (regrouped,) = by_rank(groups_of(state), [("layer.lora_A", "layer.lora_B")], rank=2)
    assert regrouped.tolist() == [[1, 2, 3], [4, 5, 6], [1, 3, 5], [2, 4, 6]]


def test_the_per_rank_penalty_is_the_sum_of_small_divergences() -> None:
    before = low_rank([[0.1, 0.2, 0.3], [0.0, 0.0, 0.5]], [[1.0, 0.0], [0.0, 0.2], [0.0, 0.0]])
    after = low_rank([[0.1, 0.7, 0.3], [0.0, 0.0, 0.5]], [[1.0, 0.0], [0.0, 0.2], [0.0, 0.9]])
    term = Peso(ProximalConfig(form="per_rank", strength=2.0)).penalty(groups_of(before), StoredView([before]))
    assert term is not None
    row = softmax_kl(after.a["layer"][:1], before.a["layer"][:1])
    column = softmax_kl(after.b["layer"][:, 1][None], before.b["layer"][:, 1][None])
    assert float(term(groups_of(after))) == pytest.approx(2 * 3 * float(row + column), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(0, 3))
def test_designed_directions_lead_and_avoid_the_past(seed: int, rank: int, num_past: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 12, generator=generator) * torch.linspace(0.2, 3, 12)
    # Directions of equal energy, so that every one of them counts as the past's.
    past = torch.linalg.qr(torch.randn(12, 2 * num_past, generator=generator)).Q
    gram = inputs.T @ inputs / 40
    chosen = designed_directions(gram, past @ past.T, rank)
    torch.testing.assert_close(chosen @ chosen.T, torch.eye(rank), rtol=1e-4, atol=1e-4)
    assert not num_past or float((chosen @ past).abs().max()) < 1e-3
    energy = (inputs @ chosen.T).square().mean(0)
    assert torch.equal(energy.argsort(descending=True), torch.arange(rank))
    if not num_past:
        wanted = torch.linalg.eigvalsh(gram.double())[-rank:].flip(0).float()
        torch.testing.assert_close(energy, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("used", "wanted"), [([1.0, 1, 0], [[0.0, 0, 1], [0, 0, 0]]), ([1.0, 1, 1], [[0.0] * 3] * 2)])
def test_designed_directions_run_out(used: list[float], wanted: list[list[float]]) -> None:
    chosen = designed_directions(torch.eye(3), torch.diag(torch.tensor(used)), rank=2)
    torch.testing.assert_close(chosen.abs(), torch.tensor(wanted))


def test_where_nothing_is_left_nothing_is_designed() -> None:
    """What rounding leaves of a large past is no direction."""
    used = torch.linalg.qr(torch.randn(128, 10, generator=torch.Generator().manual_seed(0))).Q
    inputs = torch.randn(500, 10, generator=torch.Generator().manual_seed(1)) @ used.T
    chosen = designed_directions(inputs.T @ inputs, used @ used.T, rank=64)
    assert float(chosen.abs().max()) == 0


def test_what_earlier_inputs_hardly_used_is_free() -> None:
    """A twentieth of their energy may be left out, no more."""
    earlier = torch.diag(torch.tensor([0.9, 0.052, 0.03, 0.018]))
    chosen = designed_directions(torch.diag(torch.tensor([4.0, 3, 1, 2])), earlier, rank=2)
    torch.testing.assert_close(chosen.abs(), torch.tensor([[0.0, 0, 0, 1], [0, 0, 1, 0]]))


def test_replay_adds_whole_users_of_the_past() -> None:
    dataset = tiny_dataset(num_users=40)
    new = targets_of_block(dataset, 2, "train")
    drawn = Replay(ReplayConfig(share=0.5)).examples(dataset, 2, seed=0)
    old = np.setdiff1d(drawn, new)
    assert np.isin(new, drawn).all() and (np.diff(drawn) > 0).all()
    assert 0.5 * len(new) <= len(old) < 0.5 * len(new) + 6
    allowed = np.concatenate([targets_of_block(dataset, block, "train") for block in (0, 1)])
    assert np.isin(old, allowed).all()
    keys = dataset.event_user[allowed] * 3 + dataset.event_block[allowed]
    of_drawn = np.unique(dataset.event_user[old] * 3 + dataset.event_block[old])
    assert set(allowed[np.isin(keys, of_drawn)]) == set(old)
    assert np.array_equal(drawn, Replay(ReplayConfig(share=0.5)).examples(dataset, 2, seed=0))
    assert not np.array_equal(drawn, Replay(ReplayConfig(share=0.5)).examples(dataset, 2, seed=1))


def test_retraining_sees_every_training_target_so_far_and_no_later_one() -> None:
    dataset = tiny_dataset()
    targets = Retrain().examples(dataset, 1, seed=0)
    wanted = np.concatenate([targets_of_block(dataset, block, "train") for block in (0, 1)])
    assert np.array_equal(targets, np.sort(wanted))


def test_sums_and_norms_of_updates() -> None:
    one, two = low_rank([[3.0, 4.0]], [[2.0], [0.0]]), low_rank([[1.0, 0.0]], [[0.0], [0.0]])
    both = summed([one, two.scaled(2.0)])
    torch.testing.assert_close(both.b["layer"] @ both.a["layer"], one.b["layer"] @ one.a["layer"])
    assert both.rank == 2 and torch.equal(both.last(1).a["layer"], two.a["layer"])
    normal = one.normalised()
    assert normal.a["layer"].tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
    assert normal.b["layer"].tolist() == [[1.0], [0.0]]
    assert two.normalised().b["layer"].abs().max() == 0
