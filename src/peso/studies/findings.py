"""What a study found, before it is written down, and the study itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from peso.experiments.markdown import Cell
from peso.studies.claims import PairedTest
from peso.studies.measures import NEXT_BLOCK, NEXT_NDCG, RANKS, THIS_BLOCK, Measure, spread_of, spread_text
from peso.studies.plan import Planner
from peso.studies.running import Outcome
from peso.types import StudyName


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: its heading.
        columns: headings.
        rows: cells.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Findings:
    """The study's results, ready to be written.

    Attributes:
        tables: in the order of the page.
        tests: every comparison that was made.
        picture: SVG text.
        caption: what the picture shows.
        facts: further figures for the JSON, by name.
    """

    tables: Sequence[Table]
    tests: Sequence[PairedTest]
    picture: str
    caption: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A question, what is run to answer it, and how the answer is shown.

    Attributes:
        name: its name on the command line.
        question: what it asks, one sentence.
        plan: what is run.
        present: from results to findings.
    """

    name: StudyName
    question: str
    plan: Planner
    present: Callable[[Outcome], Findings]


ALL_MEASURES: tuple[Measure, ...] = (*RANKS, NEXT_NDCG, THIS_BLOCK, NEXT_BLOCK)


def arm_table(outcome: Outcome, measures: Sequence[Measure], further: Sequence[str] = ()) -> Table:
    """A row per arm and rival: mean over later blocks, then over seeds, with the standard deviation between seeds.

    Args:
        outcome: the results.
        measures: a column each.
        further: keys of further numbers of `run_numbers`, a column each, after the measures.
    """
    rows: list[list[Cell]] = []
    for name, variant in outcome.variants.items():
        keys = [*(measure.key for measure in measures), *further]
        cells = ["-" if variant.is_rival and key in further else spread_text(*spread_of(variant, key)) for key in keys]
        rows.append([name, "-" if variant.is_rival else len(variant.runs), *cells])
    headings = [*(measure.label for measure in measures), *(key.replace("_", " ") for key in further)]
    return Table(
        "Numbers (mean over blocks 1 and later, mean ± standard deviation over seeds)", ["", "seeds", *headings], rows
    )
