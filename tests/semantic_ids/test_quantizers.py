"""One contract for every quantizer: a new one is tested by its name in `peso.types.QuantizerName`."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from catalogues import clustered_vectors
from peso.errors import ConfigError, DataError
from peso.semantic_ids.frozen import load_frozen
from peso.semantic_ids.quantizers.additive import AdditiveCodebook
from peso.semantic_ids.quantizers.base import Fit
from peso.semantic_ids.quantizers.controls import BalancedCodes
from peso.semantic_ids.quantizers.fsq import grid_codewords, grid_of
from peso.semantic_ids.quantizers.registry import build_quantizer, restore_codebook
from peso.semantic_ids.quantizers.rq_kmeans import ResidualKMeans, k_means, repeat_to
from peso.types import QuantizerName

NAMES = get_args(QuantizerName)
LEVEL_SIZES = (8, 4, 16)
VECTORS = clustered_vectors(200)
POPULARITY = np.random.default_rng(7).permutation(200).astype(np.float64)


@pytest.fixture(scope="module", params=NAMES)
def fitted(request: pytest.FixtureRequest) -> tuple[str, Fit]:
    if request.param == "fsq":
        pytest.importorskip("vector_quantize_pytorch", reason="pip install 'peso-rec[fsq]'")
    return request.param, build_quantizer(request.param).fit(VECTORS, POPULARITY, LEVEL_SIZES, 0)


def test_codes_are_in_range(fitted: tuple[str, Fit]) -> None:
    _, fit = fitted
    assert fit.codebook.level_sizes == LEVEL_SIZES
    for codes in (fit.codes, fit.codebook.encode(clustered_vectors(50, seed=1))):
        assert codes.dtype == np.int64
        assert ((codes >= 0) & (codes < LEVEL_SIZES)).all()


def test_the_codebook_is_frozen(fitted: tuple[str, Fit], tmp_path: Path) -> None:
    _, fit = fitted
    fit.codebook.state().save(tmp_path, "codebook")
    restored = restore_codebook(load_frozen(tmp_path, "codebook"))
    assert restored.level_sizes == LEVEL_SIZES
    assert restored.encode(VECTORS).tolist() == fit.codebook.encode(VECTORS).tolist()


def test_codes_depend_on_nothing_beside_the_vector(fitted: tuple[str, Fit]) -> None:
    _, fit = fitted
    whole = fit.codebook.encode(VECTORS)
    assert fit.codebook.encode(VECTORS[::-1]).tolist() == whole[::-1].tolist()
    assert np.concatenate([fit.codebook.encode(VECTORS[[n]]) for n in range(20)]).tolist() == whole[:20].tolist()
    assert fit.codebook.encode(VECTORS[:0]).shape == (0, 3)


def test_the_same_seed_gives_the_same_codes(fitted: tuple[str, Fit]) -> None:
    name, fit = fitted
    again = build_quantizer(name).fit(VECTORS, POPULARITY, LEVEL_SIZES, 0)
    assert again.codes.tolist() == fit.codes.tolist()
    assert again.codebook.state().fingerprint == fit.codebook.state().fingerprint
    other = build_quantizer(name).fit(VECTORS, POPULARITY, LEVEL_SIZES, 1)
    assert other.codebook.state().fingerprint != fit.codebook.state().fingerprint


def test_the_fit_changes_no_vector(fitted: tuple[str, Fit]) -> None:
    assert clustered_vectors(200).tolist() == VECTORS.tolist()


def test_every_level_of_codewords_lessens_the_error(fitted: tuple[str, Fit]) -> None:
    name, fit = fitted
    if not isinstance(fit.codebook, AdditiveCodebook):
        assert name in ("random", "balanced")
        return
    errors = [fit.codebook.squared_errors(VECTORS, fit.codes, level).mean() for level in range(4)]
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert (fit.codes == fit.codebook.encode(VECTORS)).all()


def test_clouds_share_a_prefix_where_vectors_are_looked_at(fitted: tuple[str, Fit]) -> None:
    name, fit = fitted
    firsts = [set(fit.codes[cloud::8, 0].tolist()) for cloud in range(8)]
    spread = np.mean([len(codes) for codes in firsts])
    assert spread > 6 if name in ("random", "balanced") else spread < 4


def test_fewer_items_than_codes(fitted: tuple[str, Fit]) -> None:
    name, _ = fitted
    few = np.repeat(VECTORS[:3], 2, axis=0)
    fit = build_quantizer(name).fit(few, np.ones(6), LEVEL_SIZES, 0)
    assert fit.codebook.level_sizes == LEVEL_SIZES
    codes = fit.codebook.encode(few)
    assert codes[::2].tolist() == codes[1::2].tolist()


def test_an_unknown_quantizer() -> None:
    with pytest.raises(ConfigError, match="no quantizer 'rqkmeans'; choose from rq-kmeans, "):
        build_quantizer("rqkmeans")


def test_residual_k_means_by_hand() -> None:
    vectors = np.array([[0, 0], [1, 0], [10, 0], [11, 0]], dtype=np.float32)
    fit = ResidualKMeans().fit(vectors, np.ones(4), (2, 2), 0)
    assert isinstance(fit.codebook, AdditiveCodebook)
    assert sorted(fit.codebook.codewords[0].tolist()) == [[0.5, 0], [10.5, 0]]
    assert sorted(fit.codebook.codewords[1].tolist()) == [[-0.5, 0], [0.5, 0]]
    assert len(np.unique(fit.codes, axis=0)) == 4
    assert fit.codebook.squared_errors(vectors, fit.codes, 2).tolist() == [0] * 4
    assert fit.codebook.squared_errors(vectors, fit.codes, 1).tolist() == [0.25] * 4


def test_centres_minimise_their_own_clusters() -> None:
    centres = k_means(VECTORS, 8, 0).astype(np.float64)
    nearest = ((VECTORS[:, None] - centres) ** 2).sum(-1).argmin(1)
    for number, centre in enumerate(centres):
        assert centre == pytest.approx(VECTORS[nearest == number].astype(np.float64).mean(axis=0), abs=1e-5)


def test_copies_fill_a_level() -> None:
    assert repeat_to(np.array([[1], [2]], np.float32), 5)[:, 0].tolist() == [1, 2, 1, 2, 1]


def test_a_network_before_the_codewords() -> None:
    layers = [
        (np.array([[1, 0], [0, -1]], np.float32), np.array([0, 1], np.float32)),
        (np.array([[1, 1]], np.float32), np.array([0.5], np.float32)),
    ]
    codebook = AdditiveCodebook([np.array([[0], [4]], np.float32)], layers=layers)
    # (2, 3) -> (2, -2) -> (2, 0) -> 2.5; (-1, -2) -> (-1, 3) -> (0, 3) -> 3.5.
    vectors = np.array([[2, 3], [-1, -2]], np.float32)
    assert codebook.latents(vectors).tolist() == [[2.5], [3.5]]
    assert codebook.encode(vectors).tolist() == [[1], [1]]


def test_balanced_codes_share_the_events() -> None:
    popularity = np.random.default_rng(0).pareto(2, 200) + 0.1
    fit = BalancedCodes().fit(VECTORS, popularity, LEVEL_SIZES, 0)
    mass = np.bincount(fit.codes[:, 0], popularity, 8) / popularity.sum()
    assert mass.max() - mass.min() <= popularity.max() / popularity.sum()
    assert len(np.unique(fit.codes, axis=0)) == 200


def test_balanced_codes_by_hand() -> None:
    fit = BalancedCodes().fit(VECTORS[:4], np.array([1.0, 5.0, 3.0, 2.0]), (2, 2), 0)
    first = fit.codes[:, 0]
    # 5 to one code; 3, then 2 to the other, which now has as much; 1 to either, by the number of items.
    assert first[2] == first[3] != first[1] == first[0]


def test_product_levels_are_k_means_of_their_own_dimensions() -> None:
    fit = build_quantizer("product").fit(VECTORS, POPULARITY, LEVEL_SIZES, 0)
    assert isinstance(fit.codebook, AdditiveCodebook)
    for level, words in enumerate(fit.codebook.codewords):
        own = np.arange(6) % 3 == level
        assert not words[:, ~own].any()
        distances = ((VECTORS[:, None, own].astype(np.float64) - words[:, own]) ** 2).sum(-1)
        assert fit.codes[:, level].tolist() == distances.argmin(axis=1).tolist()


def test_product_needs_a_dimension_per_level() -> None:
    with pytest.raises(DataError, match="vectors of 2 dimensions cannot be dealt to 3 levels"):
        build_quantizer("product").fit(VECTORS[:, :2], POPULARITY, LEVEL_SIZES, 0)


def test_grids() -> None:
    assert [grid_of(size) for size in (3, 8, 16, 256, 9, 210)] == [[3], [8], [4, 4], [8, 8, 4], [3, 3], [7, 6, 5]]
    for size in (2, 11, 22):
        with pytest.raises(ConfigError, match=f"from 3 to 8, such as 64 or 256, not {size}"):
            grid_of(size)
    first, second = grid_codewords([[4], [3, 3]])
    assert first.tolist() == [[-1, 0, 0], [-0.5, 0, 0], [0, 0, 0], [0.5, 0, 0]]
    assert second[:4].tolist() == [[0, -1, -1], [0, -1, 0], [0, -1, 1], [0, 0, -1]]


def test_the_grid_is_the_librarys() -> None:
    library = pytest.importorskip("vector_quantize_pytorch", reason="pip install 'peso-rec[fsq]'")
    values = [8, 5, 4, 3]
    latents = 2 * np.random.default_rng(0).normal(size=(200, 4))
    codebook = AdditiveCodebook(
        grid_codewords([values[:2], values[2:]]),
        layers=[(np.eye(4, dtype=np.float32), np.zeros(4, np.float32))],
        values_per_dimension=values,
    )
    codes = codebook.encode(latents.astype(np.float32))
    quantized = library.FSQ(values, return_indices=False).quantize(torch.from_numpy(latents.astype(np.float32)))
    assert codebook.reconstruct(codes, 2) == pytest.approx(quantized.numpy(), abs=1e-6)
