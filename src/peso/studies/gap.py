"""How much of what training all weights gains over an evolving LoRA do an anchor and a higher rank make up?"""

from collections.abc import Sequence

from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.experiments.markdown import Cell
from peso.studies.capacity import ALL_WEIGHTS, adapter_of_rank
from peso.studies.claims import run_tests
from peso.studies.findings import Findings, Study, Table, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import (
    BOTH_PROTOCOLS,
    DISTANCE,
    NEXT_BLOCK,
    SECONDS,
    THIS_BLOCK,
    VALID_LOSS,
    run_numbers,
    spread,
    spread_text,
)
from peso.studies.methods_compared import REFERENCE, method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome

METHODS = (REFERENCE, "peso")


def plan_gap(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA and PESO at half the base configuration's rank and at that rank, and all weights."""
    half = max(1, config.adapter.r // 2)
    ranks = list(dict.fromkeys((half, config.adapter.r)))
    arms = [
        Arm(_name(method, rank), method_arm(method, adapter=adapter_of_rank(config, rank)).overrides)
        for rank in ranks
        for method in METHODS
    ]
    names = [arm.name for arm in arms]
    arms.append(method_arm(ALL_WEIGHTS, adapter=adapter_of_rank(config, half)))
    base = names[0]
    pairs = [Pair(name, base, f"against {base}") for name in [*names[1:], ALL_WEIGHTS]]
    pairs += [Pair(name, ALL_WEIGHTS, "against all weights") for name in names]
    pairs += [Pair(_name("peso", rank), _name(REFERENCE, rank), "anchor at equal rank") for rank in ranks]
    notes = [
        "An adapter of another rank has a base of its own: the same backbone, another first adapter. "
        f"{ALL_WEIGHTS} starts from that of rank {half} and has a rate of its own ({config.full.learning_rate:g}).",
        f"The share of the distance is (arm - {base}) / ({ALL_WEIGHTS} - {base}), of the means of each seed.",
    ]
    return Plan(arms, pairs, is_next_block_listed=True, notes=notes)


def present(outcome: Outcome) -> Findings:
    """The numbers, the share of the distance that each arm makes up, and the tests."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, BOTH_PROTOCOLS)
    base, *others = [arm.name for arm in outcome.plan.arms if arm.name != ALL_WEIGHTS]
    measures = (THIS_BLOCK, NEXT_BLOCK)
    shares = {name: {measure.key: _shares(outcome, name, base, measure.key) for measure in measures} for name in others}
    rows: list[list[Cell]] = [
        [name, *(spread_text(*spread(of_seeds)) for of_seeds in found.values())] for name, found in shares.items()
    ]
    table = Table(
        f"Share of the distance from {base} to {ALL_WEIGHTS}, mean ± standard deviation over seeds",
        ["", *(measure.label for measure in measures)],
        rows,
    )
    against_base = [test for test in tests if test.pair.theirs == base and test.pair.family.startswith("against")]
    return Findings(
        [arm_table(outcome, BOTH_PROTOCOLS, (VALID_LOSS, DISTANCE, SECONDS)), table],
        tests,
        forest_of(against_base, lambda test: test.pair.ours),
        f"Each arm - {base}; filled where a difference may be claimed after correction.",
        {"shares": shares},
    )


def _name(method: str, rank: int) -> str:
    return f"{method}, rank {rank}"


def _shares(outcome: Outcome, name: str, base: str, key: str) -> Sequence[float | None]:
    """By seed; None where all weights gain nothing that could be made up."""
    arm, start, end = (
        [run_numbers(run.result)[key] for run in outcome.variants[one].runs] for one in (name, base, ALL_WEIGHTS)
    )
    found: list[float | None] = []
    for ours, low, high in zip(arm, start, end, strict=True):
        assert ours is not None and low is not None and high is not None, "every run is measured"
        found.append((ours - low) / (high - low) if high > low else None)
    return found


GAP = Study(
    "gap", "How much of what training all weights gains do an anchor and a higher rank make up?", plan_gap, present
)
