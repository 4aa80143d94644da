"""What a memory beside the model gives: counts alone, like content alone, the model alone, and all of them together."""

from peso.baselines.run import BASELINES
from peso.config import RunConfig
from peso.data.dataset import Dataset
from peso.experiments.markdown import Cell
from peso.studies.claims import run_tests
from peso.studies.findings import ALL_MEASURES, Findings, Study, Table, arm_table
from peso.studies.forests import forest_of
from peso.studies.measures import BOTH_PROTOCOLS, NDCG, THIS_BLOCK, Measure, group_numbers, spread, spread_text
from peso.studies.plan import Arm, Pair, Plan
from peso.studies.running import Outcome

MODEL, COUNTS, CONTENT = "model alone", "model + counts", "model + counts + content"
MEMORIES = {
    MODEL: {"use": False},
    COUNTS: {"use": True, "content_weight": 0},
    CONTENT: {"use": True, "content_weight": "auto"},
}
RESERVED = 0.2
"""Share of beams and places that some arms keep for new items."""
TARGETS = {"known_item": "Targets that an earlier event names", "new_item": "Targets that none names"}
_OF_TARGETS = (Measure("in_block", "hit@10"), NDCG, THIS_BLOCK)


def plan_memories(config: RunConfig, dataset: Dataset) -> Plan:
    """The same adapters with three memories, places for new items, and the rivals that have counts or texts alone."""
    arms = [Arm(name, {"method": config.method, "memory": memory}) for name, memory in MEMORIES.items()]
    arms += [
        Arm(reserving(name), arm.overrides | {"decoding": {"new_item_share": RESERVED}})
        for name, arm in zip(MEMORIES, list(arms), strict=True)
    ]
    pairs = [Pair(CONTENT, COUNTS, "what content adds"), Pair(COUNTS, MODEL, "what counts add")]
    pairs += [Pair(CONTENT, rival, "against rivals without a model") for rival in ("neighbours", "successor")]
    pairs += [Pair(reserving(name), name, "what reserved places do") for name in MEMORIES]
    notes = ["Without vectors of items (codes that were imported) there is no content, and both memories are the same."]
    return Plan(arms, pairs, rivals=BASELINES, is_next_block_listed=True, notes=notes)


def reserving(name: str) -> str:
    """The arm of this name with places for new items."""
    return f"{name}, {RESERVED:.0%} for new items"


def present(outcome: Outcome) -> Findings:
    """All numbers, those of known and of new targets, and what each memory adds."""
    tests = run_tests(outcome.variants, outcome.plan.pairs, ALL_MEASURES)
    shown = [test for test in tests if test.measure in BOTH_PROTOCOLS]
    return Findings(
        [arm_table(outcome, ALL_MEASURES), *(_of_targets(outcome, group, title) for group, title in TARGETS.items())],
        tests,
        forest_of(shown, lambda test: f"{test.pair.ours}\n- {test.pair.theirs}"),
        "What each memory adds; filled where it may be claimed after correction.",
    )


def _of_targets(outcome: Outcome, group: str, title: str) -> Table:
    first = next(iter(outcome.variants.values())).runs[0].result
    counts = [block["groups"][group]["num_targets"] for block in first["blocks"]]
    rows: list[list[Cell]] = []
    for name, variant in outcome.variants.items():
        numbers = [group_numbers(run.result, group) for run in variant.runs]
        rows.append([name, *(spread_text(*spread([one[measure.key] for one in numbers])) for measure in _OF_TARGETS)])
    columns = ["", *(measure.label for measure in _OF_TARGETS)]
    return Table(f"{title} ({', '.join(map(str, counts))} in blocks 1 and later)", columns, rows)


MEMORY = Study("memory", "What does a memory beside the model add?", plan_memories, present)
