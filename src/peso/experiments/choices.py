"""What a run chose on each block's validation targets: its learning rates, its anchor, how far a version went."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peso.experiments.results import RunRecord

_WORDS = {
    "rate_factor": "rates x {:g}",
    "proximal_strength": "strength {:g}",
    "proximal_share": "{:.0%} of the way",
    "served_share": "recommending from {:.0%}",
}


@dataclass(frozen=True)
class Choices:
    """One run.

    Attributes:
        run_id: of the run.
        blocks: what it chose for each block from 1 on, in words; empty where there was nothing to choose or the whole
            way was best.
    """

    run_id: str
    blocks: dict[int, str]


def choices_of(records: list[RunRecord]) -> list[Choices]:
    """The runs that chose anything, in the order given.

    Args:
        records: finished runs of a workspace.
    """
    chosen = [
        Choices(
            record.result["run_id"],
            {block["block"]: _in_words(block) for block in record.result["blocks"] if block["block"] > 0},
        )
        for record in records
    ]
    return [run for run in chosen if any(run.blocks.values())]


def _in_words(block: Mapping[str, Any]) -> str:
    return ", ".join(words.format(block[name]) for name, words in _WORDS.items() if name in block)
