"""Differences with their intervals, one below the other: what a set of paired tests found."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from peso.experiments.drawing import PALETTE, STYLE, as_svg


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


def forest(panels: Sequence[tuple[str, Sequence[Difference]]]) -> str:
    """A panel per measure, a line per comparison; filled where a difference may be claimed.

    Args:
        panels: title (lines of up to 34 characters) and differences, in order; a label that a panel lacks leaves its
            line empty there.
    """
    labels = list(dict.fromkeys(one.label for _, differences in panels for one in differences))
    longest = max((len(label) for label in labels), default=0)
    size = (2.5 * len(panels) + 0.075 * longest + 0.5, 0.26 * len(labels) + 1.1)
    with plt.rc_context(STYLE):
        figure, all_axes = plt.subplots(
            1, max(1, len(panels)), figsize=size, layout="constrained", squeeze=False, sharey=True
        )
        for axes, (title, differences) in zip(all_axes[0], panels, strict=False):
            axes.axvline(0, color="#444444", lw=0.8)
            for one in differences:
                place = labels.index(one.label)
                colour = (PALETTE[0] if one.difference > 0 else PALETTE[5]) if one.is_claimed else PALETTE[6]
                axes.plot([one.low, one.high], [place, place], color=colour, lw=1.4)
                face = colour if one.is_claimed else "white"
                axes.plot(one.difference, place, "o", ms=5, color=colour, markerfacecolor=face)
            axes.set_title(title, loc="left", fontsize=9)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.ticklabel_format(axis="x", useOffset=False, style="plain")
        first = all_axes[0][0]
        first.set_yticks(range(len(labels)), labels)
        first.set_ylim(len(labels) - 0.4, -0.6)
        figure.supxlabel("difference, with its 95 % interval", fontsize=9)
        return as_svg(figure)
