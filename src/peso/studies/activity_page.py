"""The page of `peso bench proximal`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peso.experiments.frontier import CurvePoint, curves_picture
from peso.experiments.markdown import markdown_table
from peso.files import write_json, write_text
from peso.studies.activity import CONTROL, STRENGTHS, Activity, Rounding, as_rows

NAME = "proximal"
_INTRODUCTION = """One update, block 1 from v_0, without an anchor and under every form of it. *gradient ratio*: the
anchor's gradient over the cross-entropy's on A and B (`decoupled`: the pull's move over the optimizer's, token rows
included). *distance*: how far A and B travelled, over how far they travel without an anchor. *difference*: how far they
end from where they end without it, over the same. An anchor that does nothing has a distance of 1 and a difference of
0. *rate*: what all learning rates of a size were multiplied by, chosen by training without an anchor. *control*: a
strength at which the term's gradient means nothing; the difference under it is what training makes of any rounding, and
no anchor of a smaller difference was seen to act."""


def write_activity(
    folder: Path, activities: Sequence[Activity], roundings: Sequence[Rounding], facts: dict[str, Any]
) -> Path:
    """Writes `proximal.svg`, `proximal.json` and, last, `proximal.md`.

    Args:
        folder: created when missing.
        activities: at least one.
        roundings: of the same sizes.
        facts: command, configuration, versions and data, for the JSON.

    Returns:
        The Markdown file.
    """
    write_text(folder / f"{NAME}.svg", _picture(activities))
    write_json(folder / f"{NAME}.json", facts | {"activities": as_rows(activities), "roundings": as_rows(roundings)})
    columns = [
        "width",
        "rank",
        "rate",
        "form",
        "strength",
        "gradient ratio",
        "distance",
        "difference",
        "validation loss",
    ]
    rows = [
        [str(one.hidden_size), str(one.rank), f"{one.rate_factor:g}", _name(one), f"{one.strength:g}",
         f"{one.gradient_ratio:.2g}", f"{one.distance_ratio:.3f}", f"{one.difference_ratio:.3f}",
         f"{one.valid_loss:.3f} ({one.valid_loss - one.valid_loss_without:+.3f})"]
        for one in activities
    ]  # fmt: skip
    of_rounding = [
        [str(one.hidden_size), str(one.rank), one.dtype, f"{one.value_ratio:.3g}", f"{one.gradient_cosine:.3f}"]
        for one in roundings
    ]
    lines = ["# proximal", "", "What does an anchor do to an update?", "", "```", facts["command"], "```", ""]
    lines += [_INTRODUCTION, "", f"![What anchors do]({NAME}.svg)", ""]
    lines += ["## Anchors", "", *markdown_table(columns, rows), "", "## Rounding", ""]
    lines += [
        "Eq. 12 as a difference of two log-softmaxes, at the update without an anchor, against the centred form in "
        "float64: what a straightforward implementation gives.",
        "",
        *markdown_table(["width", "rank", "computed in", "value / exact", "cosine of gradients"], of_rounding),
        "",
    ]
    write_text(folder / f"{NAME}.md", "\n".join(lines))
    return folder / f"{NAME}.md"


def _is_control(one: Activity) -> bool:
    return (one.form, one.strength) == CONTROL


def _name(one: Activity) -> str:
    return "control" if _is_control(one) else one.form


def _picture(activities: Sequence[Activity]) -> str:
    """The largest size's forms over their strengths, in multiples of each form's middle one."""
    largest = max((one.hidden_size, one.rank) for one in activities)
    curves: dict[str, list[CurvePoint]] = {}
    for one in activities:
        if (one.hidden_size, one.rank) == largest and not _is_control(one):
            middle = STRENGTHS[one.form][len(STRENGTHS[one.form]) // 2]
            values = {
                "ratio": (one.gradient_ratio, None),
                "distance": (one.distance_ratio, None),
                "difference": (one.difference_ratio, None),
                "loss": (one.valid_loss - one.valid_loss_without, None),
            }
            curves.setdefault(f"{one.form} (middle {middle:g})", []).append(CurvePoint(one.strength / middle, values))
    panels = [("ratio", "gradient ratio"), ("distance", "distance, of that without")]
    frontier = (("difference", "difference to no anchor"), ("loss", "validation loss - without (nats)"))
    return curves_picture(curves, panels, frontier, "strength, in the form's middle one")
