"""Which learning rates the runs of a study chose, and whether their grid had a better end."""

from collections.abc import Mapping
from dataclasses import replace

from peso.experiments.markdown import Cell
from peso.experiments.results import Variant
from peso.studies.findings import Findings, Table
from peso.studies.running import Outcome

CHOSEN_RATES = "chosen_rates"
"""Of `Findings.facts`."""


def with_chosen_rates(findings: Findings, outcome: Outcome) -> Findings:
    """Adds the choices of all arms that chose, as a table and as a fact; nothing where no arm did.

    The fact is arm -> block -> factor of each training, one per seed (two where a method has two legs). Every method
    chooses for itself, so a method whose choice lies at an end of the grid might be better still beyond it, and a
    comparison with it be too kind to the other.
    """
    chosen = {name: by_block for name, variant in outcome.variants.items() if (by_block := _chosen(variant))}
    if not chosen:
        return findings
    blocks = sorted({block for by_block in chosen.values() for block in by_block})
    rows = [_row(name, by_block, blocks, _tried(outcome.variants[name])) for name, by_block in chosen.items()]
    title = "Factors of the learning rates, chosen per block by validation loss (how many trainings)"
    headings = ["", *(f"block {block}" for block in blocks), "tried", "at the lower end", "at the upper end"]
    return replace(
        findings,
        tables=[*findings.tables, Table(title, headings, rows)],
        facts=findings.facts | {CHOSEN_RATES: chosen},
    )


def _chosen(variant: Variant) -> dict[int, list[float]]:
    chosen: dict[int, list[float]] = {}
    for run in variant.runs:
        for trial in run.result.get("rates", []):
            if trial["selected"]:
                chosen.setdefault(trial["block"], []).append(float(trial["rate_factor"]))
    return chosen


def _tried(variant: Variant) -> list[float]:
    return sorted({float(trial["rate_factor"]) for run in variant.runs for trial in run.result["rates"]})


def _row(name: str, by_block: Mapping[int, list[float]], blocks: list[int], tried: list[float]) -> list[Cell]:
    cells: list[Cell] = []
    for block in blocks:
        factors = by_block.get(block, [])
        cells.append(", ".join(f"{factor:g} ({factors.count(factor)})" for factor in sorted(set(factors))) or "-")
    every = [factor for factors in by_block.values() for factor in factors]
    ends = [f"{every.count(end)} of {len(every)}" for end in (tried[0], tried[-1])]
    return [name, *cells, ", ".join(f"{factor:g}" for factor in tried), *ends]
