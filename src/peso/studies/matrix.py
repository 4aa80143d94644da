"""What is forgotten and what is carried over: every model on every block, with and without an anchor."""

import numpy as np
import polars as pl

from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.data.examples import require_test_targets
from peso.errors import DataError
from peso.evaluation.forgetting import transfer, transfer_pairs
from peso.evaluation.significance import paired_bootstrap
from peso.experiments.comparisons import NUM_RESAMPLES
from peso.experiments.heat_map import ModelMatrix, heat_maps
from peso.studies.claims import PairedTest, correct_together
from peso.studies.findings import Findings, Study, Table
from peso.studies.measures import Measure, spread, spread_text
from peso.studies.methods_compared import method_arm
from peso.studies.model_matrix import gains, matrix_of, of_models, targets_of_every_model
from peso.studies.plan import Pair, Plan
from peso.studies.running import Outcome

METHODS = ("single", "peso")
LIKELIHOOD, NDCG = Measure("any_block", "log_likelihood"), Measure("any_block", "ndcg@10")
DIGITS, TITLES = {LIKELIHOOD: 2, NDCG: 4}, {LIKELIHOOD: "log-likelihood (nats)", NDCG: NDCG.label}
SIDES = {
    "backward": ("last model", "model of the block"),
    "forward": ("model of the block before", "base"),
}
"""The two models that a transfer compares; see `peso.evaluation.forgetting`."""
LEAST_BLOCKS = 3


def plan_matrix(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA and PESO; their adapters after every block are then measured on every block.

    Raises:
        DataError: there are fewer than three blocks, or a later one has no test targets.
    """
    if dataset.num_blocks < LEAST_BLOCKS:
        raise DataError(
            f"study matrix needs at least {LEAST_BLOCKS} blocks, and this workspace has {dataset.num_blocks}; "
            "nothing can be forgotten between fewer."
        )
    require_test_targets(dataset, range(1, dataset.num_blocks), "study matrix")
    notes = [
        "With T updates and R[i, j] the model after block i on the test targets of block j (1 to T): forgetting is the "
        "mean over j < T of max(R[i, j], j <= i < T) - R[T, j]; backward transfer the mean over j < T of R[T, j] - "
        "R[j, j]; forward transfer the mean over j > 1 of R[j - 1, j] - R[0, j], where model 0 is the base.",
        "A later model has met an earlier block's test items in its histories, never as what it had to answer.",
    ]
    return Plan([method_arm(method) for method in METHODS], notes=notes)


def present(outcome: Outcome) -> Findings:
    """Measures what is missing, then shows matrices, transfers and their tests."""
    targets = {
        name: [targets_of_every_model(outcome.workspaces[""], run) for run in variant.runs]
        for name, variant in outcome.variants.items()
    }
    rows, facts, pictures = [], {}, []
    for measure in (LIKELIHOOD, NDCG):
        line = []
        for name, frames in targets.items():
            matrices = [matrix_of(frame, measure.metric) for frame in frames]
            transfers = [transfer(matrix) for matrix in matrices]
            line.append(ModelMatrix(f"{name}: {TITLES[measure]}", np.mean(matrices, axis=0), DIGITS[measure]))
            summary = {
                kind: [getattr(one, kind) for one in transfers] for kind in ("forgetting", "backward", "forward")
            }
            rows.append([name, TITLES[measure], *(spread_text(*spread(values)) for values in summary.values())])
            facts[f"{name}, {measure.metric}"] = summary | {"matrices": [matrix.tolist() for matrix in matrices]}
        pictures.append(line)
    joined = {name: pl.concat(frames) for name, frames in targets.items()}
    return Findings(
        [Table("Forgetting and transfer", ["", "metric", "forgetting", "backward transfer", "forward transfer"], rows)],
        _tests(joined, len(pictures[0][0].values) - 1),
        heat_maps(pictures),
        "Model after each block on each block's test targets (mean over seeds); blue: better than the model that has "
        "just trained on the block, red: worse.",
        {"matrix": facts},
    )


def _tests(targets: dict[str, pl.DataFrame], num_updates: int) -> list[PairedTest]:
    """Each method's transfers against none, and PESO's against single's."""
    tests = []
    for kind, triples in transfer_pairs(num_updates).items():
        ours, theirs = SIDES[kind]
        for measure in (LIKELIHOOD, NDCG):
            found = []
            for name, frame in targets.items():
                sides = (
                    of_models(frame, [(model, block) for model, _, block in triples]),
                    of_models(frame, [(other, block) for _, other, block in triples]),
                )
                pair = Pair(f"{name}, {ours}", f"{name}, {theirs}", f"{kind} transfer")
                found.append((pair, paired_bootstrap(*sides, measure.metric, NUM_RESAMPLES)))
            tests += correct_together(found, measure)
        names = Pair(f"peso's {kind} transfer", f"single's {kind} transfer", f"{kind} transfer, peso against single")
        peso, single = gains(targets["peso"], triples), gains(targets["single"], triples)
        comparison = paired_bootstrap(peso, single, LIKELIHOOD.metric, NUM_RESAMPLES)
        tests += correct_together([(names, comparison)], LIKELIHOOD)
    return tests


MATRIX = Study(
    "matrix", "What do updates forget of earlier blocks, and carry over to later ones?", plan_matrix, present
)
