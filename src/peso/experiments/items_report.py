"""One self-contained HTML file about the semantic IDs of a workspace."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from peso.experiments.code_tree import code_tree
from peso.files import write_text
from peso.semantic_ids.judging import Judgement, judge_workspace

PAGE = "items.html"


def write_items_report(workspace: Path) -> dict[str, Any]:
    """Writes `items.html`.

    Args:
        workspace: with data and semantic IDs.

    Returns:
        JSON values: the file (`report`), the encoder in whose vectors distances were taken (`space`), how the codes
        were made (`record`) and the quality of every level (`levels`).

    Raises:
        PesoError: see `judge_workspace`.
    """
    judgement = judge_workspace(workspace)
    names = {group.code: " ".join(group.words[:2]) for group in judgement.groups}
    environment = Environment(
        loader=PackageLoader("peso.experiments"), autoescape=select_autoescape(["jinja"]), undefined=StrictUndefined
    )
    page = environment.get_template("items.html.jinja").render(
        judgement=judgement,
        summary=_summary(judgement),
        tree=Markup(code_tree(judgement.semantic_ids.codes, names)),
    )
    write_text(workspace / PAGE, page)
    return {
        "report": str(workspace / PAGE),
        "space": judgement.space,
        "record": judgement.record,
        "levels": [asdict(level) for level in judgement.levels],
    }


def _summary(judgement: Judgement) -> str:
    first, ids = judgement.levels[0], judgement.semantic_ids
    record = judgement.record
    made = "The codes were imported."
    if record is not None:
        made = (
            f"Encoder {record['encoder']}, quantizer {record['quantizer']}, learned from "
            f"{record['num_items_learned_from']:,} of {record['num_items']:,} items, those of block 0."
        )
        if record["error_before"]:
            made += (
                f" Making codes unique raised their mean squared error by "
                f"{record['error_after'] / record['error_before'] - 1:.1%}."
            )
    return (
        f"{made} {first.num_used} of {first.num_codes} first codes are used ({first.num_used / first.num_codes:.0%}); "
        f"{ids.num_moved:,} items shared a code and were given a free one; of an item's ten nearest neighbours "
        f"{first.neighbours_sharing:.0%} share its first code (by chance {first.neighbours_by_chance:.1%})."
    )
