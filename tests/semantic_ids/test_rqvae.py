"""RQ-VAE's parts: gradients against their formulas, balanced codes against their marginals, dead codes revived."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from catalogues import clustered_vectors
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.gradients import pass_back
from peso.semantic_ids.quantizers.rqvae import RqVaeQuantizer, revive_unused
from peso.semantic_ids.quantizers.rqvae_model import RqVae
from peso.semantic_ids.quantizers.transport import balanced_codes


def gradient_of(latent: Tensor, quantized: Tensor, name: str, upstream: Tensor) -> Tensor:
    latent = latent.clone().requires_grad_()
    passed = pass_back(latent, quantized, name)  # type: ignore[arg-type]
    assert torch.allclose(passed, quantized, atol=1e-6)
    passed.backward(upstream)
    assert latent.grad is not None
    return latent.grad


def test_straight_through_passes_the_gradient_unchanged() -> None:
    upstream = torch.tensor([[1.0, -2.0]])
    assert gradient_of(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), "straight_through", upstream).equal(
        upstream
    )


def test_rotation_by_hand() -> None:
    # z = (1, 0) becomes q = (0, 2): a quarter turn and twice the length, so a gradient turns back and doubles.
    latent, quantized = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    for upstream, expected in (([0.0, 1.0], [2.0, 0.0]), ([1.0, 0.0], [0.0, -2.0])):
        found = gradient_of(latent, quantized, "rotation", torch.tensor([upstream]))
        assert torch.allclose(found, torch.tensor([expected]), atol=1e-6)


@given(seed=st.integers(0, 500), width=st.integers(2, 6))
@settings(max_examples=50, deadline=None)
def test_rotation_is_one(seed: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    latent, quantized, upstream = torch.randn(3, 1, width, generator=generator, dtype=torch.float64)
    found = gradient_of(latent, quantized, "rotation", upstream)
    # The rotation in the plane of a and b from its definition: R = I + T + T^2 / (1 + a.b) with T = b a^T - a b^T.
    a, b = latent[0] / latent.norm(), quantized[0] / quantized.norm()
    turn = torch.outer(b, a) - torch.outer(a, b)
    rotation = torch.eye(width, dtype=torch.float64) + turn + turn @ turn / (1 + a @ b)
    expected = quantized.norm() / latent.norm() * (upstream @ rotation)
    assert torch.allclose(found, expected, atol=1e-9)


def test_latents_of_length_zero_give_finite_gradients() -> None:
    zero, one = torch.zeros(1, 2), torch.ones(1, 2)
    for latent, quantized in ((zero, one), (one, zero), (one, -one)):
        value = latent.clone().requires_grad_()
        passed = pass_back(value, quantized, "rotation")
        assert torch.allclose(passed, quantized)
        passed.sum().backward()
        assert value.grad is not None and value.grad.isfinite().all()


def test_balanced_codes_by_hand() -> None:
    # All four are nearest to codeword 0; the two that lose least by it go to codeword 1.
    distances = torch.tensor([[0.0, 4.0], [0.0, 1.0], [0.0, 5.0], [0.0, 2.0]])
    assert balanced_codes(distances).tolist() == [0, 1, 0, 1]


def test_balanced_codes_are_nearly_balanced() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, words = torch.randn(256, 4, generator=generator), torch.randn(16, 4, generator=generator)
    distances = torch.cdist(rows, words).square()
    counts = balanced_codes(distances).bincount(minlength=16)
    assert counts.min() > 0
    assert counts.max() <= 32
    assert distances.argmin(dim=1).bincount(minlength=16).max() > counts.max()
    assert balanced_codes(torch.zeros(3, 2)).shape == (3,)


def test_unused_codes_are_revived() -> None:
    words = torch.tensor([[0.0], [5.0], [7.0]])
    residuals = torch.tensor([[1.0], [2.0]])
    torch.manual_seed(0)
    assert revive_unused([words], [torch.tensor([3, 0, 0])], [residuals]) == 2
    assert words[0].item() == 0
    assert set(words[1:, 0].tolist()) <= {1.0, 2.0}


def test_the_loss_is_its_formula() -> None:
    torch.manual_seed(0)
    model = RqVae((3, 2), (2, 4), "straight_through")
    with torch.no_grad():
        for words in model.codebooks:
            words.normal_()
    vectors = torch.randn(5, 3)
    passed = model(vectors)
    latent = model.encoder(vectors)
    first = torch.cdist(latent, model.codebooks[0]).argmin(dim=1)
    assert passed.codes_BM[:, 0].equal(first)
    chosen = [words[passed.codes_BM[:, level]] for level, words in enumerate(model.codebooks)]
    gaps = [latent - chosen[0], latent - chosen[0] - chosen[1]]
    expected = (model.decoder(sum(chosen)) - vectors).square().sum(1).mean()
    expected = expected + sum(1.25 * gap.square().sum(1).mean() for gap in gaps)
    assert passed.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_training_lessens_the_error_and_spreads_the_codes() -> None:
    vectors = clustered_vectors(200)
    fit = RqVaeQuantizer("rotation").fit(vectors, np.ones(200), (8, 8), 0)
    assert isinstance(fit.codebook, AdditiveCodebook)
    errors = [fit.codebook.squared_errors(vectors, fit.codes, level).mean() for level in range(3)]
    latents = fit.codebook.latents(vectors)
    assert errors[2] < 0.2 * latents.var(axis=0).sum()
    assert len(np.unique(fit.codes[:, 0])) == 8
    assert len(np.unique(fit.codes[:, 1])) == 8


def test_global_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    RqVaeQuantizer("rotation").fit(clustered_vectors(8), np.ones(8), (2, 2), 0)
    assert torch.get_rng_state().equal(before)
