"""Methods side by side: all of them (Table 2), the cumulative ones (Table 1), the penalties (Figure 2)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal, get_args

from peso.baselines.base import Baseline
from peso.baselines.run import BASELINES
from peso.config import DEFAULT_STRENGTHS, RunConfig
from peso.data.dataset import Dataset
from peso.methods.registry import METHODS
from peso.studies.claims import run_tests
from peso.studies.findings import ALL_MEASURES, Findings, Study, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import BOTH_PROTOCOLS, DISTANCE, RATIO, SECONDS
from peso.studies.plan import Arm, Pair, Plan, UserSplit
from peso.studies.running import Outcome
from peso.types import HeldParts, MetricName, PastName, ProximalForm, StartName

REFERENCE, OURS = "single", "peso"
WITH_MEMORY, REFERENCE_WITH_MEMORY = "peso + memory", "single + memory"
CUMULATIVE = ("sum_lora", "sd_lora")
"""Methods that keep past adapters beside the current one, in the variants of Table 1."""
OTHERS_WITH_A_PAST = ("inf_lora", "o_lora", "lsat")
"""More methods of more than one adapter."""
USER_DISJOINT = "user-disjoint"
"""The split in which blocks share no user."""
PAPERS_METRIC: MetricName = "softmax"
"""Of the decoupled pull by default, and of no other form by name."""
HELD_ALONE: dict[HeldParts, str] = {"adapter": "A and B alone", "token_rows": "token rows alone"}
"""Parts that the pull may hold by themselves, in words."""
PENALTIES = ("orthogonal", "ewc", "output_kl")
"""Methods with a penalty of their own."""


def method_arm(method: str, **overrides: Any) -> Arm:
    """A method as the base configuration has it, without memory."""
    return Arm(method, {"method": method, "memory": {"use": False}} | overrides)


def anchored_by(form: ProximalForm, strength: float | Literal["auto"]) -> dict[str, Any]:
    """The section `proximal` of a form by itself; only the decoupled pull measures by what the base configuration says.

    Versions go all the way to where training ends.
    """
    alone = {"form": form, "strength": strength, "share": 1.0}
    return alone | ({} if form == "decoupled" else {"metric": PAPERS_METRIC, "held": "all"})


def against_reference(arms: Sequence[Arm], notes: Sequence[str], rivals: Sequence[type[Baseline]] = ()) -> Plan:
    """Every arm, and every rival, against the arm `single`, in one family."""
    names = [arm.name for arm in arms] + [rival.name for rival in rivals]
    pairs = [Pair(name, REFERENCE, f"against {REFERENCE}") for name in names if name != REFERENCE]
    return Plan(arms, pairs, rivals=rivals, notes=notes, references=[REFERENCE])


def against_the_others(arms: Sequence[Arm]) -> list[Pair]:
    """PESO against every arm but the reference, whose comparisons are a family of their own."""
    own = (OURS, REFERENCE, WITH_MEMORY, REFERENCE_WITH_MEMORY)
    return [Pair(OURS, arm.name, f"{OURS} against the others") for arm in arms if arm.name not in own]


def plan_all_methods(config: RunConfig, dataset: Dataset) -> Plan:
    """Every method that is registered, two with a memory of counts, and the rivals without a network."""
    arms = [method_arm(method) for method in METHODS]
    with_memory = {WITH_MEMORY: OURS, REFERENCE_WITH_MEMORY: REFERENCE}
    arms += [Arm(name, {"method": method, "memory": {"use": True}}) for name, method in with_memory.items()]
    notes = [
        "Settings are those of the base configuration for every method; none was tuned for this table, and runs choose "
        "on their own validation targets only."
    ]
    plan = against_reference(arms, notes, rivals=BASELINES)
    further = [Pair(WITH_MEMORY, rival.name, f"{WITH_MEMORY} against counts") for rival in BASELINES]
    further.append(Pair(WITH_MEMORY, REFERENCE_WITH_MEMORY, "both with a memory"))
    return replace(plan, pairs=[*plan.pairs, *against_the_others(arms), *further], is_next_block_listed=True)


def plan_cumulative(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA, PESO and the cumulative methods in every variant of the paper's Table 1, in two splits."""
    natural = [method_arm(REFERENCE)]
    for method in CUMULATIVE:
        for past, start in product(get_args(PastName), get_args(StartName)):
            variant = {"method": method, "memory": {"use": False}, "cumulative": {"past": past, "start": start}}
            natural.append(Arm(f"{method}, {past}, {start}", variant))
    natural += [method_arm(method) for method in (*OTHERS_WITH_A_PAST, OURS)]
    disjoint = [Arm(f"{USER_DISJOINT}: {arm.name}", arm.overrides, USER_DISJOINT) for arm in natural]
    reference = f"{USER_DISJOINT}: {REFERENCE}"
    pairs = [Pair(arm.name, REFERENCE, f"against {REFERENCE}") for arm in natural[1:]]
    pairs += [Pair(arm.name, reference, f"against {reference}") for arm in disjoint[1:]]
    pairs += against_the_others(natural)
    notes = [
        "In the user-disjoint split all of a user's events are of one block, drawn at random; arms of different splits "
        "have different targets and do not compare. Items keep their semantic IDs, which may have been learned from "
        "block 0 of the natural split.",
    ]
    worlds = {USER_DISJOINT: UserSplit()}
    return Plan(
        [*natural, *disjoint], pairs,
        is_next_block_listed=True, worlds=worlds, notes=notes, references=[REFERENCE, reference],
    )  # fmt: skip


def plan_penalties(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA, PESO's forms at their own strengths, its pull in each metric and of each part."""
    arms = [method_arm(REFERENCE)]
    for form in get_args(ProximalForm):
        name, anchor = f"peso, {form} {DEFAULT_STRENGTHS[form]:g}", anchored_by(form, DEFAULT_STRENGTHS[form])
        for metric in get_args(MetricName) if form == "decoupled" else (PAPERS_METRIC,):
            arm = method_arm("peso", proximal=anchor | {"metric": metric})
            arms.append(Arm(name if metric == PAPERS_METRIC else f"{name}, {metric}", arm.overrides))
        if form == "decoupled":
            for held, alone in HELD_ALONE.items():
                of_part = anchor | {"metric": PAPERS_METRIC, "held": held}
                arms.append(Arm(f"{name}, {alone}", method_arm("peso", proximal=of_part).overrides))
    arms += [method_arm(method) for method in PENALTIES]
    return against_reference(arms, ["Every penalty at its own default strength; none was tuned for this table."])


def present(outcome: Outcome) -> Findings:
    """The table of every measure, and what sets each method apart from single evolving LoRA."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, ALL_MEASURES)
    to_reference = [test for test in tests if test.pair.theirs in outcome.plan.references]
    shown = [test for test in to_reference if test.measure in BOTH_PROTOCOLS]
    return Findings(
        [arm_table(outcome, ALL_MEASURES, (DISTANCE, RATIO, SECONDS))],
        tests,
        forest_of(shown, lambda test: test.pair.ours),
        f"Difference to {REFERENCE}; filled where it may be claimed after correction.",
    )


TABLE_1 = Study(
    "table1", "What do methods gain that keep past adapters beside the current one?", plan_cumulative, present
)
TABLE_2 = Study(
    "table2", "What does each continual method gain over a single evolving adapter?", plan_all_methods, present
)
FIGURE_2 = Study("fig2", "Which penalty on an evolving adapter helps?", plan_penalties, present)
