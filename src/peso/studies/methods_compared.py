"""Methods side by side: all of them (Table 2), the cumulative ones (Table 1), the penalties (Figure 2)."""

from collections.abc import Sequence
from typing import Any, get_args

from peso.baselines.run import BASELINES
from peso.config import DEFAULT_STRENGTHS, RunConfig
from peso.data.dataset import Dataset
from peso.errors import ConfigError
from peso.methods.registry import METHODS
from peso.studies.claims import run_tests
from peso.studies.findings import ALL_MEASURES, Findings, Study, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import DISTANCE, NDCG, NEXT_BLOCK, RATIO, SECONDS, THIS_BLOCK
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome
from peso.types import PenaltyForm

REFERENCE = "single"
WITH_MEMORY = "peso + memory"
CUMULATIVE = ("sum_lora", "sd_lora", "inf_lora", "lsat")
"""Methods that keep past adapters beside the current one; those that the registry does not know are left out."""
PENALTIES = ("orthogonal", "ewc")
"""Methods with a penalty of their own; those that the registry does not know are left out."""


def method_arm(method: str, **overrides: Any) -> Arm:
    """A method as the base configuration has it, without memory."""
    return Arm(method, {"method": method, "memory": {"use": False}} | overrides)


def against_reference(arms: Sequence[Arm], notes: Sequence[str], has_rivals: bool = False) -> Plan:
    """Every arm, and every rival if wanted, against the arm `single`, in one family."""
    names = [arm.name for arm in arms] + ([rival.name for rival in BASELINES] if has_rivals else [])
    pairs = [Pair(name, REFERENCE, f"against {REFERENCE}") for name in names if name != REFERENCE]
    return Plan(arms, pairs, has_rivals=has_rivals, notes=notes)


def plan_all_methods(config: RunConfig, dataset: Dataset) -> Plan:
    """Every method that is registered, PESO with a memory of counts, and the rivals without a network."""
    arms = [method_arm(method) for method in METHODS]
    arms.append(Arm(WITH_MEMORY, {"method": "peso", "memory": {"use": True}}))
    notes = ["Settings are those of the base configuration for every method; none was tuned for this table."]
    return against_reference(arms, notes, has_rivals=True)


def plan_cumulative(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA, PESO, and every cumulative method that is registered.

    Raises:
        ConfigError: none of them is.
    """
    known = [method for method in CUMULATIVE if method in METHODS]
    if not known:
        raise ConfigError(
            f"study table1 compares the methods {', '.join(CUMULATIVE)}, and none of them is registered here; "
            f"there are: {', '.join(METHODS)}."
        )
    notes = ["The natural split of the data only; the paper's user-disjoint split is left out."]
    return against_reference(
        [method_arm(method) for method in (REFERENCE, *known, "peso")], notes + _absent(CUMULATIVE)
    )


def plan_penalties(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA, PESO's forms at their own default strengths, and the registered methods with a penalty."""
    arms = [method_arm(REFERENCE)]
    for form in ("decoupled", *get_args(PenaltyForm)):
        name = f"peso, {form} {DEFAULT_STRENGTHS[form]:g}"
        overrides = {"proximal": {"form": form, "strength": DEFAULT_STRENGTHS[form]}}
        arms.append(Arm(name, {"method": "peso", "memory": {"use": False}} | overrides))
    arms += [method_arm(method) for method in PENALTIES if method in METHODS]
    notes = ["Of the paper's penalties, the KL of LoRA outputs and the softmax-KL per rank are not implemented."]
    return against_reference(arms, notes + _absent(PENALTIES))


def present(outcome: Outcome) -> Findings:
    """The table of every measure, and what sets each method apart from single evolving LoRA."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, ALL_MEASURES)
    shown = [test for test in tests if test.measure in (NDCG, THIS_BLOCK, NEXT_BLOCK)]
    return Findings(
        [arm_table(outcome, ALL_MEASURES, (DISTANCE, RATIO, SECONDS))],
        tests,
        forest_of(shown, lambda test: test.pair.ours),
        f"Difference to {REFERENCE}; filled where it may be claimed after correction.",
    )


def _absent(wanted: Sequence[str]) -> list[str]:
    absent = [method for method in wanted if method not in METHODS]
    return [f"Left out, because they are not registered: {', '.join(absent)}."] if absent else []


TABLE_1 = Study(
    "table1", "What do methods gain that keep past adapters beside the current one?", plan_cumulative, present
)
TABLE_2 = Study(
    "table2", "What does each continual method gain over a single evolving adapter?", plan_all_methods, present
)
FIGURE_2 = Study("fig2", "Which penalty on an evolving adapter helps?", plan_penalties, present)
