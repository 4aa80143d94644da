"""The paired test: exact estimates, honest sizes."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peso.errors import DataError
from peso.evaluation.significance import block_means, holm, paired_bootstrap


def frame(values: np.ndarray, seeds: list[int | None]) -> pl.DataFrame:
    """Log-likelihoods [S, U, B] as scored targets."""
    num_seeds, num_users, num_blocks = values.shape
    seed, user, block = np.meshgrid(range(num_seeds), range(num_users), range(num_blocks), indexing="ij")
    return pl.DataFrame(
        {
            "seed": pl.Series([seeds[s] for s in seed.ravel()], dtype=pl.Int64),
            "user_id": [f"u{u}" for u in user.ravel()],
            "block": block.ravel() + 1,
            "event": user.ravel() * num_blocks + block.ravel(),
            "log_likelihood": values.ravel(),
        }
    )


def test_estimates_are_exact_and_symmetric() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(2, 30, 3)), random.normal(size=(2, 30, 3))
    result = paired_bootstrap(frame(ours, [0, 1]), frame(theirs, [0, 1]), "log_likelihood", 500)
    mirrored = paired_bootstrap(frame(theirs, [0, 1]), frame(ours, [0, 1]), "log_likelihood", 500)
    assert result.ours == pytest.approx(ours.mean())
    assert result.difference == pytest.approx(ours.mean() - theirs.mean())
    assert mirrored.difference == pytest.approx(-result.difference)
    assert mirrored.p_value == pytest.approx(result.p_value, abs=0.1)
    assert (result.num_users, result.num_seeds, result.num_targets) == (30, 2, 90)


def test_a_rival_without_seeds_is_paired_with_every_seed() -> None:
    random = np.random.default_rng(1)
    ours, rival = random.normal(size=(3, 20, 2)), random.normal(size=(1, 20, 2))
    result = paired_bootstrap(frame(ours, [0, 1, 2]), frame(rival, [None]), "log_likelihood", 200)
    assert result.theirs == pytest.approx(rival.mean())
    assert result.num_seeds == 3
    both = paired_bootstrap(frame(rival, [None]), frame(rival, [None]), "log_likelihood", 200)
    assert both.difference == 0
    assert both.p_value == 1


def test_a_clear_difference_is_found_and_luck_is_not_called_one() -> None:
    random = np.random.default_rng(2)
    found = 0
    for trial in range(100):
        base = random.normal(size=(1, 60, 2))
        noise = random.normal(size=(1, 60, 2))
        result = paired_bootstrap(frame(base + noise, [0]), frame(base, [0]), "log_likelihood", 300, seed=trial)
        found += result.p_value < 0.05
    assert found <= 13  # 5 expected; more than 13 of 100 has a chance below 0.1 %
    clear = paired_bootstrap(frame(base + 1 + noise, [0]), frame(base, [0]), "log_likelihood", 300)
    assert clear.p_value < 0.01
    assert clear.low > 0


def test_luck_of_users_and_seeds_together_is_covered() -> None:
    random = np.random.default_rng(6)
    zero = frame(np.zeros((3, 60, 2)), [0, 1, 2])
    covered = 0
    for trial in range(100):
        luck = 0.3 * random.normal(size=(1, 60, 1)) + 0.2 * random.normal(size=(3, 1, 1))
        result = paired_bootstrap(frame(np.tile(luck, (1, 1, 2)), [0, 1, 2]), zero, "log_likelihood", 300, seed=trial)
        covered += result.low <= 0 <= result.high
    assert covered >= 87  # 95 expected; fewer than 87 of 100 has a chance below 0.1 %


@pytest.mark.parametrize(("num_differing", "least"), [(1, 1.0), (3, 0.25), (5, 0.0625), (12, 0.0)])
def test_few_users_who_differ_prove_little(num_differing: int, least: float) -> None:
    """However sure the resamples look: of so few signs all agree by chance that often."""
    theirs = np.random.default_rng(7).normal(size=(1, 200, 2))
    ours = theirs.copy()
    ours[0, :num_differing] += 1.0
    result = paired_bootstrap(frame(ours, [0]), frame(theirs, [0]), "log_likelihood", 2000)
    assert result.p_value >= least
    assert (result.p_value < 0.01) == (least == 0)


def test_seeds_that_disagree_widen_the_interval() -> None:
    shift = np.array([-1.0, 0.0, 1.0])[:, None, None]
    base = np.random.default_rng(3).normal(size=(1, 200, 2)).repeat(3, axis=0)
    same = paired_bootstrap(frame(base + 0.3, [0, 1, 2]), frame(base, [0, 1, 2]), "log_likelihood", 500)
    split = paired_bootstrap(frame(base + 0.3 + shift, [0, 1, 2]), frame(base, [0, 1, 2]), "log_likelihood", 500)
    assert same.p_value < 0.05 < split.p_value


def test_block_means_are_the_blocks_means() -> None:
    values = np.random.default_rng(4).normal(size=(2, 25, 3))
    means = block_means(frame(values, [0, 1]), "log_likelihood", 200)
    assert [mean.block for mean in means] == [1, 2, 3, None]
    np.testing.assert_allclose([mean.mean for mean in means], [*values.mean(axis=(0, 1)), values.mean()])
    assert all(mean.low < mean.mean < mean.high for mean in means)


def test_a_block_that_a_resample_misses_counts_as_nothing() -> None:
    """Block 2 has two users of forty, so that one resample in eight draws neither: that is no value of zero."""
    values = -12 + np.random.default_rng(8).normal(size=(1, 40, 2))
    targets = frame(values, [0]).filter((pl.col("block") == 1) | pl.col("user_id").is_in(["u0", "u1"]))
    means = block_means(targets, "log_likelihood", 500)
    assert [mean.block for mean in means] == [1, 2, None]
    assert all(-16 < mean.low <= mean.mean <= mean.high < -8 for mean in means)
    lower = targets.with_columns(pl.col("log_likelihood") - 1)
    result = paired_bootstrap(targets, lower, "log_likelihood", 500)
    assert [result.low, result.high] == pytest.approx([1, 1])


def test_unlike_sides_are_refused() -> None:
    values = np.zeros((1, 5, 2))
    with pytest.raises(DataError, match="occur on both sides"):
        paired_bootstrap(frame(values, [0]), frame(values[:, :4], [0]), "log_likelihood", 10)
    with pytest.raises(DataError, match="seeds differ"):
        paired_bootstrap(frame(values, [0]), frame(values, [1]), "log_likelihood", 10)
    with pytest.raises(DataError, match="occurs twice"):
        block_means(pl.concat([frame(values, [0])] * 2), "log_likelihood", 10)


def test_holm_by_hand() -> None:
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 lifted to the one before, 0.4 x 1.
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(raw <= new <= 1 for raw, new in zip(p_values, corrected, strict=True))
    assert corrected[int(np.argmin(p_values))] == pytest.approx(min(1.0, len(p_values) * min(p_values)))
    for one in range(len(p_values)):
        for other in range(len(p_values)):
            assert p_values[one] > p_values[other] or corrected[one] <= corrected[other]
