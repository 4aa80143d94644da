"""Differences with their intervals, one below the other: what a set of paired tests found."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from peso.experiments.drawing import PALETTE, STYLE, as_svg

FAR = 6.0
"""Beyond so many times the median reach of a panel's intervals, a line would leave no room for the others."""


@dataclass(frozen=True)
class Difference:
    """One paired difference.

    Attributes:
        label: what is compared; equal labels share a line in every panel.
        difference: ours - theirs.
        low: lower end of its interval.
        high: upper end of its interval.
        is_claimed: whether it may be called a difference.
    """

    label: str
    difference: float
    low: float
    high: float
    is_claimed: bool

    @property
    def reach(self) -> float:
        """How far from zero its interval goes."""
        return max(abs(self.low), abs(self.high))


def forest(panels: Sequence[tuple[str, Sequence[Difference]]]) -> str:
    """A panel per measure, a line per comparison; filled where a difference may be claimed.

    A line far beyond the others of its panel (`FAR`) is an arrow with its number, so that the others can be read.

    Args:
        panels: title (lines of up to 34 characters) and differences, in order; a label that a panel lacks leaves its
            line empty there.
    """
    labels = list(dict.fromkeys(one.label for _, differences in panels for one in differences))
    texts = [label.split("\n") for label in labels] or [[""]]
    longest = max(len(line) for lines in texts for line in lines)
    height = 0.26 + 0.14 * (max(map(len, texts)) - 1)
    size = (2.5 * len(panels) + 0.075 * longest + 0.5, height * len(labels) + 1.1)
    with plt.rc_context(STYLE):
        figure, all_axes = plt.subplots(
            1, max(1, len(panels)), figsize=size, layout="constrained", squeeze=False, sharey=True
        )
        for axes, (title, differences) in zip(all_axes[0], panels, strict=False):
            axes.axvline(0, color="#444444", lw=0.8)
            limit = near_limit(differences)
            near = [one for one in differences if one.reach <= limit]
            for one in near:
                _draw_interval(axes, one, labels.index(one.label))
            if len(near) < len(differences):
                axes.set_xlim(axes.get_xlim())  # what follows widens nothing
            for one in differences:
                if one.reach > limit:
                    _draw_arrow(axes, one, labels.index(one.label))
            axes.set_title(title, loc="left", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.ticklabel_format(axis="x", useOffset=False, style="plain")
        first = all_axes[0][0]
        first.set_yticks(range(len(labels)), labels)
        first.set_ylim(len(labels) - 0.4, -0.6)
        figure.supxlabel("difference, with its 95 % interval", fontsize=9)
        return as_svg(figure)


def near_limit(differences: Sequence[Difference]) -> float:
    """The longest reach that a panel shows to scale; infinite for a panel without lines."""
    return FAR * float(np.median([one.reach for one in differences])) if differences else np.inf


def _colour(one: Difference) -> str:
    return (PALETTE[0] if one.difference > 0 else PALETTE[5]) if one.is_claimed else PALETTE[6]


def _draw_interval(axes: Axes, one: Difference, place: int) -> None:
    colour = _colour(one)
    axes.plot([one.low, one.high], [place, place], color=colour, lw=1.4)
    axes.plot(one.difference, place, "o", ms=5, color=colour, markerfacecolor=colour if one.is_claimed else "white")


def _draw_arrow(axes: Axes, one: Difference, place: int) -> None:
    is_right = one.difference > 0
    edge = axes.get_xlim()[is_right]
    marker, side, offset = (">", "right", -6) if is_right else ("<", "left", 6)
    axes.plot(edge, place, marker, ms=6, color=_colour(one), clip_on=False)
    axes.annotate(
        f"{one.difference:+.3g}", (edge, place), (offset, 0), textcoords="offset points",
        ha=side, va="center", fontsize=8, color=_colour(one),
    )  # fmt: skip
