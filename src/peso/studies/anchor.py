"""Is anchoring better than its rivals, learning rate and weight decay? The best of each family, by validation loss."""

from collections.abc import Mapping

from peso.config import DEFAULT_STRENGTHS, RunConfig
from peso.data.dataset import Dataset
from peso.experiments.frontier import curves_picture
from peso.experiments.markdown import Cell
from peso.studies.claims import run_tests
from peso.studies.curves import (
    AS_CONFIGURED,
    MEASURES,
    RATE_FACTORS,
    best_of_curves,
    curve_points,
    frontier_axes,
    scaled_rates,
)
from peso.studies.findings import Findings, Study, Table, arm_table
from peso.studies.measures import DISTANCE, VALID_LOSS, spread_of, spread_text
from peso.studies.methods_compared import method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome
from peso.types import ProximalForm

FORM: ProximalForm = "decoupled"
WEIGHT_DECAYS = (0.01, 0.1, 0.3, 1.0)
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
ANCHORED = ("anchor", "anchor + weight decay", "anchor + learning rate")
RIVALS = ("weight decay", "learning rate")
"""Families without an anchor; they are single evolving LoRA."""


def plan_rivals(config: RunConfig, dataset: Dataset) -> Plan:
    """Each family varies one setting of the base configuration at its rates; PESO is anchored by the decoupled pull."""
    arms: dict[str, Arm] = {}
    curves: dict[str, dict[str, float]] = {}

    def add(family: str, knob: float, name: str, arm: Arm) -> None:
        arms[name] = Arm(name, arm.overrides)
        curves.setdefault(family, {})[name] = knob

    proximal = config.proximal
    strength = proximal.strength if proximal.form == FORM else DEFAULT_STRENGTHS[FORM]
    anchor = {"proximal": {"form": FORM, "strength": strength, "share": 1.0}}
    for method, prefix in (("single", ""), ("peso", "anchor + ")):
        held = anchor if method == "peso" else {}
        for decay in WEIGHT_DECAYS:
            arm = method_arm(method, training={"weight_decay": decay} | AS_CONFIGURED, **held)
            add(f"{prefix}weight decay", decay, f"{method}, weight decay {decay:g}", arm)
        for factor in RATE_FACTORS:
            arm = method_arm(method, training=scaled_rates(config, factor), **held)
            add(f"{prefix}learning rate", factor, f"{method}, rate x{factor:g}", arm)
    for strength in STRENGTHS:
        arm = method_arm("peso", proximal={"form": FORM, "strength": strength, "share": 1.0}, training=AS_CONFIGURED)
        add("anchor", strength, f"peso, strength {strength:g}", arm)
    notes = [
        "The configuration of a family that is compared is the one with the least validation loss, mean over later "
        "blocks and seeds; test targets take no part in the choice. Validation targets are of the block that is "
        "trained on, so the choice favours the fit of that block.",
    ]
    return Plan(list(arms.values()), (), curves, notes=notes)


def present(outcome: Outcome) -> Findings:
    """The frontier of every family, and tests between the best of each."""
    best = best_of_curves(outcome)
    pairs = [
        Pair(best[ours], best[theirs], f"best {ours} against the best of each rival")
        for ours in ANCHORED
        for theirs in RIVALS
    ]
    rows: list[list[Cell]] = [
        [
            family,
            name,
            _is_at_an_end(outcome.plan.curves[family], name),
            *(spread_text(*spread_of(outcome.variants[name], key)) for key in _keys()),
        ]
        for family, name in best.items()
    ]
    curves = {family: curve_points(outcome, names, MEASURES) for family, names in outcome.plan.curves.items()}
    ringed = [(family, outcome.plan.curves[family][name]) for family, name in best.items()]
    headings = [
        "family",
        "chosen by validation loss",
        "at an end of its grid",
        "validation loss",
        *(measure.label for measure in MEASURES),
    ]
    return Findings(
        [
            Table("The best of each family", headings, rows),
            arm_table(outcome, MEASURES, (VALID_LOSS, DISTANCE)),
        ],
        run_tests(outcome.variants, pairs, MEASURES),
        curves_picture(curves, [], frontier_axes(), "setting", None, ringed),
        "Fit of this block against the next block's likelihood; larger dots for larger values of a family's setting, "
        "a ring around the one with the least validation loss.",
        {"best": best},
    )


def _keys() -> list[str]:
    return [VALID_LOSS, *(measure.key for measure in MEASURES)]


def _is_at_an_end(names: Mapping[str, float], name: str) -> str:
    return "yes" if name in (next(iter(names)), next(reversed(list(names)))) else "no"


ANCHOR = Study("anchor", "Is an anchor better than what else keeps an adapter near its past?", plan_rivals, present)
