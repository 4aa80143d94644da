"""How strength (Figure 3) and learning rate (Figure 4) trade the fit of one block for the next."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peso.config import DEFAULT_STRENGTHS, RunConfig
from peso.data.dataset import Dataset
from peso.experiments.frontier import CurvePoint, curves_picture
from peso.studies.claims import run_tests
from peso.studies.findings import Findings, Study, arm_table
from peso.studies.measures import (
    DISTANCE,
    NDCG,
    NEXT_BLOCK,
    RATIO,
    THIS_BLOCK,
    VALID_LOSS,
    Measure,
    spread_of,
)
from peso.studies.methods_compared import OURS, REFERENCE, against_reference, anchored_by, method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome
from peso.types import ProximalForm

STRENGTHS: Mapping[ProximalForm, tuple[float, ...]] = {
    "decoupled": (0.3, 1, 3, 10, 30),
    "paper": (0.5, 2, 8, 100, 1000),
    "normalised": (0.001, 0.01, 0.1, 1),
    "l2": (0.001, 0.01, 0.1, 1),
}
"""Grid of each form; the paper's grid for Eq. 12 ends at 8, where the term still does next to nothing."""
CHOSEN = "decoupled, auto"
"""The arm whose blocks choose the strength themselves."""
RATE_FACTORS = (0.1, 0.25, 0.5, 1.0, 2.0)
AS_CONFIGURED = {"rate_factors": [1.0]}
"""Of `training`: no rate is chosen, so that what varies is what a study varies."""
MEASURES = (NDCG, THIS_BLOCK, NEXT_BLOCK)
FRONTIER = (THIS_BLOCK, NEXT_BLOCK)


def scaled_rates(config: RunConfig, factor: float) -> dict[str, Any]:
    """Overrides that scale both learning rates of later blocks, which chose among some otherwise."""
    training = config.training
    return {
        "learning_rate": training.learning_rate * factor,
        "token_rows_learning_rate": training.token_rows_learning_rate * factor,
    } | AS_CONFIGURED


def plan_strengths(config: RunConfig, dataset: Dataset) -> Plan:
    """PESO in four forms, each over its grid and once as every block chooses, beside single evolving LoRA."""
    arms = [method_arm(REFERENCE)]
    curves: dict[str, Mapping[str, float]] = {}
    for form, strengths in STRENGTHS.items():
        names = {f"{form} {strength:g}": strength for strength in strengths}
        arms += [
            Arm(name, method_arm("peso", proximal=anchored_by(form, strength)).overrides)
            for name, strength in names.items()
        ]
        curves[form] = names
    arms.append(Arm(CHOSEN, method_arm("peso", proximal=anchored_by("decoupled", "auto")).overrides))
    notes = [
        "A strength means something else in every form; compare curves, not strengths.",
        f'"{CHOSEN}": each block chooses among 0 and four multiples of the default on its validation targets.',
    ]
    plan = against_reference(arms, notes)
    pairs = [*plan.pairs, Pair(CHOSEN, f"decoupled {DEFAULT_STRENGTHS['decoupled']:g}", "against the default strength")]
    return Plan(plan.arms, pairs, curves, notes=notes, references=plan.references)


def plan_rates(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA and PESO at scaled learning rates of later blocks; compared at equal rates."""
    methods = (REFERENCE, OURS)
    curves = {method: {f"{method}, rate x{factor:g}": factor for factor in RATE_FACTORS} for method in methods}
    arms = [
        Arm(name, method_arm(method, training=scaled_rates(config, factor)).overrides)
        for method, names in curves.items()
        for name, factor in names.items()
    ]
    pairs = [Pair(ours, theirs, "equal rates") for theirs, ours in zip(*curves.values(), strict=True)]
    notes = [
        "Both rates, of A and B and of the token rows, are scaled together; every run starts from the same base.",
        "A method's best rate is the one of the least validation loss, mean over later blocks and seeds; test "
        "targets take no part in the choice.",
    ]
    return Plan(arms, pairs, curves, notes=notes, references=[f"{REFERENCE}, rate x1"])


def present_strengths(outcome: Outcome) -> Findings:
    """Strength against every measure, and the frontier."""
    return _present(outcome, "strength (lambda)", REFERENCE)


def present_rates(outcome: Outcome) -> Findings:
    """Learning rate against every measure, the frontier, and both methods at the rate that is best for each."""
    best = best_of_curves(outcome)
    knob = "learning rate, times the base configuration's"
    if OURS not in best:
        return _present(outcome, knob, None)
    pairs = [Pair(best[OURS], best[REFERENCE], "each at its best rate")]
    return _present(outcome, knob, None, pairs, {"best": best})


def best_of_curves(outcome: Outcome) -> dict[str, str]:
    """The arm of each curve with the least validation loss; the first of equal ones."""

    def loss(name: str) -> float:
        mean, _ = spread_of(outcome.variants[name], VALID_LOSS)
        assert mean is not None, "single and peso train, so they have a validation loss"
        return mean

    return {curve: min(names, key=loss) for curve, names in outcome.plan.curves.items()}


def curve_points(outcome: Outcome, names: Mapping[str, float], measures: Iterable[Measure]) -> list[CurvePoint]:
    """The points of a curve, ready to be drawn."""
    return [
        CurvePoint(knob, {measure.key: _known(outcome, name, measure) for measure in measures})
        for name, knob in names.items()
    ]


def frontier_axes() -> tuple[tuple[str, str], tuple[str, str]]:
    """Key and title of both axes of a frontier: the fit of this block, and the next block's."""
    this, following = FRONTIER
    return (this.key, this.label), (following.key, following.label)


def _known(outcome: Outcome, name: str, measure: Measure) -> tuple[float, float | None]:
    mean, deviation = spread_of(outcome.variants[name], measure.key)
    assert mean is not None, "every arm of a curve is a model, which has ranks and likelihoods"
    return mean, deviation


def _present(
    outcome: Outcome,
    knob: str,
    reference: str | None,
    further: Sequence[Pair] = (),
    facts: dict[str, Any] | None = None,
) -> Findings:
    curves = {name: curve_points(outcome, names, MEASURES) for name, names in outcome.plan.curves.items()}
    star = None if reference is None else (reference, curve_points(outcome, {reference: 0.0}, MEASURES)[0])
    panels = [(measure.key, measure.label) for measure in (NDCG, NEXT_BLOCK)]
    caption = (
        f"Over the {knob}; right: fit of this block against the next block's likelihood, larger dots for larger values."
    )
    return Findings(
        [arm_table(outcome, MEASURES, (VALID_LOSS, DISTANCE, RATIO))],
        run_tests(outcome.variants, [*outcome.plan.pairs, *further], MEASURES),
        curves_picture(curves, panels, frontier_axes(), knob, star),
        caption + (f" Dotted line and star: {reference}." if reference else ""),
        facts or {},
    )


FIGURE_3 = Study("fig3", "How strong should the anchor be, and in which form?", plan_strengths, present_strengths)
FIGURE_4 = Study(
    "fig4", "How fast should an adapter learn from later blocks, with and without an anchor?", plan_rates, present_rates
)
