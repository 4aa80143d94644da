"""What updates and the anchor gain at other ranks, in other layers, with a part alone, and with all weights."""

from typing import Any

from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.studies.claims import run_tests
from peso.studies.curves import MEASURES
from peso.studies.findings import Findings, Study, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import DISTANCE, SECONDS
from peso.studies.methods_compared import method_arm
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome

RANKS = (2, 8, 32, 64)
ALL_WEIGHTS = "full"
"""The method that trains the whole backbone: what a larger adapter may come near."""
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
STANDSTILL = 1e-9
"""A learning rate at which nothing moves in float32; the configuration has no switch."""
AS_CONFIGURED = "as configured"


def adapter_of_rank(config: RunConfig, rank: int) -> dict[str, Any]:
    """The section `adapter` with another rank; the scale lora_alpha / r stays the base configuration's."""
    adapter = config.adapter
    return {"r": rank, "lora_alpha": max(1, round(adapter.lora_alpha * rank / adapter.r))}


def capacities(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Name of each capacity and its overrides."""
    adapter = config.adapter
    found: dict[str, dict[str, Any]] = {AS_CONFIGURED: {}}
    for rank in RANKS:
        if rank != adapter.r:
            found[f"rank {rank}"] = {"adapter": adapter_of_rank(config, rank)}
    found["attention only"] = {"adapter": {"target_modules": ATTENTION}}
    found["feed-forward only"] = {"adapter": {"target_modules": FEED_FORWARD}}
    found["adapter alone"] = {"training": {"token_rows_learning_rate": STANDSTILL}}
    found["token rows alone"] = {"training": {"learning_rate": STANDSTILL}}
    return found


def plan_capacities(config: RunConfig, dataset: Dataset) -> Plan:
    """Single evolving LoRA and PESO at every capacity: against each other, and against the base configuration."""
    chosen = capacities(config)
    arms = [
        Arm(f"{method}, {name}", method_arm(method, **overrides).overrides)
        for name, overrides in chosen.items()
        for method in ("single", "peso")
    ]
    pairs = [Pair(f"peso, {name}", f"single, {name}", "equal capacity") for name in chosen]
    pairs += [
        Pair(f"{method}, {name}", f"{method}, {AS_CONFIGURED}", f"{method}: against the base configuration")
        for method in ("single", "peso")
        for name in chosen
        if name != AS_CONFIGURED
    ]
    arms.append(method_arm(ALL_WEIGHTS))
    pairs += [Pair(f"single, {name}", ALL_WEIGHTS, "single: against all weights") for name in chosen if "rank" in name]
    pairs.append(Pair(f"single, {AS_CONFIGURED}", ALL_WEIGHTS, "single: against all weights"))
    modules = ", ".join(config.adapter.target_modules)
    notes = [
        f'"{AS_CONFIGURED}" is rank {config.adapter.r} on {modules}.',
        f"{ALL_WEIGHTS} has a rate of its own ({config.full.learning_rate:g}).",
        "An adapter of another rank or place has a base of its own: the same backbone, another first adapter.",
        '"Adapter alone" and "token rows alone" hold the other part still in later blocks only; on block 0 both train.',
        "Left out, because no configuration expresses it: an adapter without trainable token rows from the start, and "
        "ranks that differ between layers.",
    ]
    references = [*(f"{method}, {AS_CONFIGURED}" for method in ("single", "peso")), ALL_WEIGHTS]
    return Plan(arms, pairs, notes=notes, references=references)


def present(outcome: Outcome) -> Findings:
    """The table, and what the anchor gains at each capacity."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, MEASURES)
    equal = [test for test in tests if test.pair.family == "equal capacity"]
    return Findings(
        [arm_table(outcome, MEASURES, (DISTANCE, SECONDS))],
        tests,
        forest_of(equal, lambda test: test.pair.ours.removeprefix("peso, ")),
        "peso - single at equal capacity; filled where a difference may be claimed after correction.",
    )


CAPACITY = Study(
    "capacity", "What does it gain to let an update change more, with and without an anchor?", plan_capacities, present
)
