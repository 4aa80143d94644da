"""Is a difference between two methods more than luck? Paired bootstrap over users, with the spread between seeds.

The statistic is the mean over blocks of the mean over targets, averaged over seeds: the figure a result reports. Two
sources of luck count. Users: they are resampled as clusters, so a user's targets in all blocks and seeds move together.
Seeds: they are too few to resample (three that agree would look certain, which happens by chance one time in four), so
the seeds' part is Student's t with S - 1 degrees of freedom, exact for normal differences between seeds.

Array legend: T targets of one seed, S seeds, U users, B blocks, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso.errors import DataError
from peso.evaluation.summary import metric_values

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95
_CHUNK_ELEMENTS = 2_000_000  # resampled users held at once: 16 MB of weights


@dataclass(frozen=True)
class Comparison:
    """What a paired comparison of two methods found.

    Attributes:
        metric: the metric compared.
        ours: our mean over blocks.
        theirs: their mean over blocks.
        difference: ours - theirs.
        relative_difference: difference / |theirs|; None where theirs is 0.
        low: lower end of the 95 % interval of the difference.
        high: upper end of the 95 % interval of the difference.
        p_value: two-sided, in (0, 1]; never below 2 / (num_resamples + 1), nor below what the signs of so few users
            could show.
        num_users: users resampled.
        num_seeds: seeds paired; with 1 the interval speaks of that seed alone.
        num_targets: targets of one seed.
    """

    metric: str
    ours: float
    theirs: float
    difference: float
    relative_difference: float | None
    low: float
    high: float
    p_value: float
    num_users: int
    num_seeds: int
    num_targets: int


@dataclass(frozen=True)
class BlockMean:
    """One method's mean in one block, with its 95 % interval.

    Attributes:
        block: the targets' block; None for the mean over blocks.
        mean: mean over the block's targets and seeds.
        low: lower end of the interval.
        high: upper end of the interval.
        num_targets: targets of one seed.
    """

    block: int | None
    mean: float
    low: float
    high: float
    num_targets: int


@dataclass(frozen=True)
class _Sums:
    """Sums per user and block, all that a resample of users needs.

    Attributes:
        values: [S, U, B], sum of the metric over a user's targets.
        counts: [U, B], number of a user's targets.
        blocks: block number of each column.
    """

    values: FloatArray
    counts: FloatArray
    blocks: list[int]


def paired_bootstrap(
    ours: pl.DataFrame,
    theirs: pl.DataFrame,
    metric: str,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compares two methods on the same targets.

    Args:
        ours: scored targets of one protocol, all seeds below each other: `seed` (may be null), `block`, `event`,
            `user_id`, and `rank` or `log_likelihood`.
        theirs: the same for the other method. A side with the single seed null has no randomness and is paired with
            every seed of the other side; otherwise both sides need the same seeds.
        metric: one of `METRICS`.
        num_resamples: resamples R.
        seed: of the resampling; the same seed gives the same numbers.

    Returns:
        The comparison. Its p-value is twice the smaller of (number of resampled differences <= 0, >= 0) plus one, over
        R + 1. Noise that is neither the user's nor the seed's counts twice, so the test errs on the careful side. Where
        only n users differ at all, resampling knows too little of their spread: then it is at least 2 / 2^n, the chance
        that n differences of either sign agree.

    Raises:
        DataError: a target is missing or repeated on one side, the seeds differ, or a value is missing or not finite.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16; Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1(2), 2007, on two crossed sources of luck.
    """
    own_rows, their_rows = (_select(frame, metric) for frame in (ours, theirs))
    own_seeds, their_seeds = (rows["seed"].unique().sort().to_list() for rows in (own_rows, their_rows))
    if own_seeds == [None]:
        own_rows, own_seeds = _repeated(own_rows, their_seeds), their_seeds
    if their_seeds == [None]:
        their_rows, their_seeds = _repeated(their_rows, own_seeds), own_seeds
    if own_seeds != their_seeds:
        raise DataError(f"the seeds differ, {own_seeds} against {their_seeds}; compare runs with the same seeds.")
    keys = ["seed", "block", "event", "user_id"]
    paired = own_rows.join(their_rows, on=keys, how="inner", nulls_equal=True)
    if not len(paired) == len(own_rows) == len(their_rows):
        raise DataError(
            f"only {len(paired)} of {max(len(own_rows), len(their_rows))} targets occur on both sides; "
            "compare results of the same data, protocol and blocks."
        )
    own = _sums(paired, pl.col("value"))
    their = _sums(paired, pl.col("value_right"))
    own_mean, their_mean = (float(_mean_of_blocks(s.values.mean(axis=0).sum(axis=0), s)) for s in (own, their))
    gap = _Sums(own.values - their.values, own.counts, own.blocks)
    difference, resampled = _resampled_means(gap, num_resamples, np.random.default_rng(seed))
    overall = resampled[:, -1]
    low, high = _interval(overall)
    smaller = min(np.count_nonzero(overall <= 0), np.count_nonzero(overall >= 0))
    num_differing = np.count_nonzero((gap.values != 0).any(axis=(0, 2)))
    return Comparison(
        metric=metric,
        ours=own_mean,
        theirs=their_mean,
        difference=float(difference[-1]),
        relative_difference=float(difference[-1]) / abs(their_mean) if their_mean else None,
        low=low,
        high=high,
        p_value=min(1.0, max(2 * (int(smaller) + 1) / (num_resamples + 1), 2.0 ** (1 - num_differing))),
        num_users=gap.values.shape[1],
        num_seeds=gap.values.shape[0],
        num_targets=int(gap.counts.sum()),
    )


def block_means(targets: pl.DataFrame, metric: str, num_resamples: int = 2000, seed: int = 0) -> list[BlockMean]:
    """One method's mean per block, and over blocks, with 95 % intervals.

    Args:
        targets: scored targets of one protocol, all seeds below each other, as for `paired_bootstrap`.
        metric: one of `METRICS`.
        num_resamples: resamples R.
        seed: of the resampling.

    Returns:
        One entry per block, ascending, then the mean over blocks (block None).

    Raises:
        DataError: a value is missing or not finite, or seeds score different targets.
    """
    sums = _sums(_select(targets, metric), pl.col("value"))
    means, resampled = _resampled_means(sums, num_resamples, np.random.default_rng(seed))
    blocks: list[int | None] = [*sums.blocks, None]
    counts = [*sums.counts.sum(axis=0).astype(int).tolist(), int(sums.counts.sum())]
    return [
        BlockMean(block, float(mean), *_interval(column), num_targets)
        for block, mean, column, num_targets in zip(blocks, means, resampled.T, counts, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a family of tests, corrected so that the chance of any false claim among them stays below the level.

    Formula: with the m values sorted, p_(1) <= ... <= p_(m), the corrected p_(i) is the largest of
    min(1, (m - j + 1) p_(j)) over j <= i. It holds however the tests depend on each other.

    Args:
        p_values: of every test of the family, in [0, 1].

    Returns:
        The corrected values in the order given: never below the raw ones, and in the same order of size.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2),
    1979.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * np.asarray(p_values, dtype=np.float64)[order]))
    return [float(value) for value in corrected]


def _repeated(rows: pl.DataFrame, seeds: list[int | None]) -> pl.DataFrame:
    """The rows of a method without randomness, once for each seed of the other side."""
    return pl.concat([rows.with_columns(seed=pl.lit(seed, dtype=pl.Int64)) for seed in seeds])


def _select(targets: pl.DataFrame, metric: str) -> pl.DataFrame:
    values = metric_values(targets, metric)
    if values is None or not np.isfinite(values).all():
        raise DataError(f"a target has no finite {metric}; compare methods on a metric that both have.")
    keys = targets.select("seed", "block", "event", "user_id")
    if keys.is_duplicated().any():
        raise DataError("a target occurs twice; give each run's targets of one protocol once.")
    return keys.with_columns(value=pl.Series(values))


def _sums(rows: pl.DataFrame, value: pl.Expr) -> _Sums:
    seeds = rows["seed"].unique().sort()
    users, blocks = rows["user_id"].unique().sort(), rows["block"].unique().sort()
    shape = (len(seeds), len(users), len(blocks))
    place = np.ravel_multi_index(
        tuple(
            np.searchsorted(known.fill_null(-1).to_numpy(), column.fill_null(-1).to_numpy())
            if known.dtype != pl.String
            else column.cast(pl.Enum(known)).to_physical().to_numpy()
            for known, column in ((seeds, rows["seed"]), (users, rows["user_id"]), (blocks, rows["block"]))
        ),
        shape,
    )
    size = int(np.prod(shape))
    values = np.bincount(place, rows.select(value).to_series().to_numpy(), minlength=size).reshape(shape)
    counts = np.bincount(place, minlength=size).reshape(shape)
    if (counts != counts[0]).any():
        raise DataError("the seeds score different targets; compare runs of the same data.")
    return _Sums(values.astype(np.float64), counts[0].astype(np.float64), blocks.to_list())


def _mean_of_blocks(block_sums: FloatArray, sums: _Sums) -> np.float64:
    return np.float64((block_sums / sums.counts.sum(axis=0)).mean())


def _resampled_means(sums: _Sums, num_resamples: int, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Point estimates [B + 1] and their resamples [R, B + 1]; the last column is the mean over blocks.

    A block of which a resample has drawn no user is not a number there, and left out of that mean.
    """
    num_seeds, num_users, num_blocks = sums.values.shape
    by_seed = sums.values.sum(axis=1) / sums.counts.sum(axis=0)  # [S, B]
    by_seed = np.c_[by_seed, by_seed.mean(axis=1)]
    seed_mean = sums.values.mean(axis=0)  # [U, B]
    resampled = np.empty((num_resamples, num_blocks + 1))
    chunk = max(1, _CHUNK_ELEMENTS // num_users)
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        weights = random.multinomial(num_users, np.full(num_users, 1 / num_users), size=size).astype(np.float64)
        totals = weights @ sums.counts
        means = np.divide(weights @ seed_mean, totals, out=np.full_like(totals, np.nan), where=totals > 0)
        resampled[start : start + size] = np.c_[means, np.nanmean(means, axis=1)]
    if num_seeds > 1:
        spread = by_seed.std(axis=0, ddof=1) / np.sqrt(num_seeds)
        resampled += spread * random.standard_t(num_seeds - 1, size=(num_resamples, 1))
    return by_seed.mean(axis=0), resampled


def _interval(resampled: FloatArray) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    return float(low), float(high)
