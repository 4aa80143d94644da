"""Dormant and new users (Table 3): who pays for an update, and who gains."""

from peso.evaluation.groups import USER_GROUPS
from peso.experiments.markdown import Cell
from peso.studies.claims import PairedTest, run_tests
from peso.studies.findings import Findings, Study, Table
from peso.studies.forests import forest_of
from peso.studies.measures import NDCG, NEXT_BLOCK, NEXT_NDCG, THIS_BLOCK, Measure, group_numbers, spread, spread_text
from peso.studies.methods_compared import REFERENCE_WITH_MEMORY, plan_all_methods
from peso.studies.running import Outcome

MEASURES = (Measure("in_block", "ndcg@5"), NDCG, Measure("in_block", "hit@10"), NEXT_NDCG, THIS_BLOCK, NEXT_BLOCK)


def present(outcome: Outcome) -> Findings:
    """A table per user group, and each group's tests against single evolving LoRA and between both memories."""
    tables: list[Table] = []
    tests: list[PairedTest] = []
    facts = {}
    references = outcome.plan.references
    pairs = [pair for pair in outcome.plan.pairs if pair.theirs in (*references, REFERENCE_WITH_MEMORY)]
    for group in USER_GROUPS:
        numbers = {
            name: [group_numbers(run.result, group) for run in variant.runs]
            for name, variant in outcome.variants.items()
        }
        rows: list[list[Cell]] = [
            [name, *(spread_text(*spread([one[measure.key] for one in runs])) for measure in MEASURES)]
            for name, runs in numbers.items()
        ]
        first = next(iter(outcome.variants.values())).runs[0].result
        counts = [block["groups"][group]["num_targets"] for block in first["blocks"]]
        title = f"{group.capitalize()} users ({', '.join(map(str, counts))} test targets in blocks 1 and later)"
        tables.append(Table(title, ["", *(measure.label for measure in MEASURES)], rows))
        tests += run_tests(outcome.variants, pairs, MEASURES, group)
        facts[group] = {
            name: [{"seed": run.result["seed"]} | one for run, one in zip(variant.runs, numbers[name], strict=True)]
            for name, variant in outcome.variants.items()
        }
    to_reference = [test for test in tests if test.pair.theirs in references and test.group != "returning"]
    shown = [test for test in to_reference if test.measure in (NDCG, NEXT_NDCG, NEXT_BLOCK)]
    return Findings(
        tables,
        tests,
        forest_of(shown, lambda test: test.pair.ours, lambda test: f"{test.group} users\n{test.measure.label}"),
        "Difference to single among dormant and new users; filled where it may be claimed after correction.",
        {"groups": facts},
    )


TABLE_3 = Study(
    "table3", "What does each method do for users who return after a gap, and for new ones?", plan_all_methods, present
)
