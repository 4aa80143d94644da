"""Every model of a run on every block's test targets, kept in the workspace so that it is measured once."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso.config import make_config
from peso.evaluation.summary import metric_values
from peso.experiments.results import RunRecord
from peso.files import atomic_path
from peso.training.base import load_base, read_base
from peso.training.materials import load_materials
from peso.training.measure import measure_any_block, memory_after


def targets_of_every_model(workspace: Path, run: RunRecord) -> pl.DataFrame:
    """Scores the test targets of every later block with the model after every block, the base included.

    Args:
        workspace: where the run, its base and the measurements lie.
        run: a finished run.

    Returns:
        Rows as in `targets.parquet`, protocol "any_block", with the column `seed`.
    """
    folder = workspace / "studies" / "matrix" / run.folder.name
    materials = load_materials(workspace, make_config(run.folder / "config.toml"))
    num_blocks = materials.dataset.num_blocks
    frames = []
    for model_block in range(num_blocks):
        path = folder / f"model_{model_block}.parquet"
        if not path.exists():
            base = read_base(materials, workspace / "bases")
            _, reader = load_base(materials, base, run.folder / "adapters" / f"block_{model_block}")
            memory = memory_after(materials, reader, model_block)
            measured = [
                measure_any_block(materials, reader, memory, model_block, block) for block in range(1, num_blocks)
            ]
            with atomic_path(path) as temporary:
                pl.concat([one.targets for one in measured]).write_parquet(temporary)
        frames.append(pl.read_parquet(path))
    return pl.concat(frames).with_columns(seed=pl.lit(run.result["seed"], dtype=pl.Int64))


def matrix_of(targets: pl.DataFrame, metric: str) -> NDArray[np.float64]:
    """R of one seed: row i is the model after block i, column j - 1 the mean of the metric over block j's targets.

    Args:
        targets: see `targets_of_every_model`.
        metric: one of `peso.evaluation.summary.METRICS`.

    Returns:
        float64 [T + 1, T].
    """
    values = metric_values(targets, metric)
    assert values is not None, "every model makes lists and has likelihoods"
    num_models = int(targets["model_block"].max()) + 1  # type: ignore[arg-type]
    models, blocks = targets["model_block"].to_numpy(), targets["block"].to_numpy()
    place = models * (num_models - 1) + blocks - 1
    sums, counts = (np.bincount(place, weights, num_models * (num_models - 1)) for weights in (values, None))
    return (sums / counts).reshape(num_models, num_models - 1)


def of_models(targets: pl.DataFrame, pairs: list[tuple[int, int]]) -> pl.DataFrame:
    """The targets of chosen (model, block) pairs, in any order of rows."""
    wanted = pl.DataFrame(pairs, schema={"model_block": pl.Int64, "block": pl.Int64}, orient="row")
    return targets.join(wanted, on=["model_block", "block"], how="semi")


def gains(targets: pl.DataFrame, triples: list[tuple[int, int, int]]) -> pl.DataFrame:
    """What one model adds to another's log-likelihood, target by target.

    Args:
        targets: see `targets_of_every_model`.
        triples: (model, model it is compared with, block of the targets).

    Returns:
        Rows with `seed`, `block`, `event`, `user_id` and the difference as `log_likelihood`.
    """
    keys = ["seed", "block", "event", "user_id"]
    ours = of_models(targets, [(model, block) for model, _, block in triples])
    theirs = of_models(targets, [(other, block) for _, other, block in triples])
    joined = ours.join(theirs.select(*keys, other="log_likelihood"), on=keys)
    return joined.select(*keys, log_likelihood=pl.col("log_likelihood") - pl.col("other"))
