"""Curves of configurations: what a setting does to each measure, and what fit of one block costs on the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from peso.experiments.drawing import PALETTE, STYLE, as_svg

_SMALLEST_DOT, _LARGEST_DOT = 3.0, 8.5
_MARKERS = "osD^vP"
_MOST_TICKS = 6  # more knobs than this get the ticks of the axis


@dataclass(frozen=True)
class CurvePoint:
    """One configuration of a curve.

    Attributes:
        knob: the value that varies along the curve.
        values: measure -> mean and standard deviation over seeds (None with one seed).
    """

    knob: float
    values: Mapping[str, tuple[float, float | None]]


Curves = Mapping[str, Sequence[CurvePoint]]
"""Points of each curve, by rising knob."""


def curves_picture(
    curves: Curves,
    panels: Sequence[tuple[str, str]],
    frontier: tuple[tuple[str, str], tuple[str, str]],
    knob: str,
    reference: tuple[str, CurvePoint] | None = None,
    ringed: Sequence[tuple[str, float]] = (),
    scale: Literal["log", "linear"] = "log",
) -> str:
    """A panel per measure over the knob, and one of two measures against each other, where dots grow with the knob.

    Args:
        curves: what to draw.
        panels: key and title of each measure that is drawn over the knob; may be empty.
        frontier: key and title of the horizontal and of the vertical measure of the last panel.
        knob: what varies, for axis and caption.
        reference: a configuration outside the curves with its name: a line in the panels, a star in the last.
        ringed: curve and knob of the points that are ringed in the last panel.
        scale: of the knob's axis.
    """
    num_panels = len(panels) + 1
    knobs = sorted({point.knob for points in curves.values() for point in points})
    with plt.rc_context(STYLE):
        figure, all_axes = plt.subplots(
            1, num_panels, figsize=(3.1 * num_panels + 2.2, 3.3), layout="constrained", squeeze=False
        )
        for axes, (key, title) in zip(all_axes[0], panels, strict=False):
            for number, points in enumerate(curves.values()):
                errors = [point.values[key][1] or 0.0 for point in points]
                axes.errorbar([point.knob for point in points], [point.values[key][0] for point in points], yerr=errors,
                              capsize=2, marker=_marker(number), ms=4, lw=1.4, color=_colour(number))  # fmt: skip
            if reference is not None:
                axes.axhline(reference[1].values[key][0], color="#444444", ls=":", lw=1.2)
            axes.set_xscale(scale)
            if len(knobs) <= _MOST_TICKS:
                axes.set_xticks(knobs, [f"{value:g}" for value in knobs])
                axes.minorticks_off()
            axes.set_xlabel(knob)
            axes.set_title(title, loc="left", fontsize=9)
            axes.ticklabel_format(axis="y", useOffset=False, style="plain")
        _draw_frontier(all_axes[0][-1], curves, frontier, reference, ringed)
        all_axes[0][-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return as_svg(figure)


def _draw_frontier(
    axes: Axes,
    curves: Curves,
    frontier: tuple[tuple[str, str], tuple[str, str]],
    reference: tuple[str, CurvePoint] | None,
    ringed: Sequence[tuple[str, float]],
) -> None:
    (x_key, x_title), (y_key, y_title) = frontier
    for number, (name, points) in enumerate(curves.items()):
        places = [(point.values[x_key][0], point.values[y_key][0]) for point in points]
        look: Any = {"color": _colour(number), "marker": _marker(number), "alpha": 0.75}
        axes.plot(*zip(*places, strict=True), lw=1.2, color=_colour(number), alpha=0.75)
        axes.plot([], [], lw=1.2, ms=5, label=name, **look)
        for rank, (point, place) in enumerate(zip(points, places, strict=True)):
            size = _SMALLEST_DOT + (_LARGEST_DOT - _SMALLEST_DOT) * rank / max(1, len(points) - 1)
            axes.plot(*place, ms=size, markeredgecolor="white", markeredgewidth=0.4, **look)
            if (name, point.knob) in ringed:
                axes.plot(*place, "o", ms=_LARGEST_DOT + 5, markerfacecolor="none", markeredgecolor=_colour(number))
    if reference is not None:
        name, point = reference
        axes.plot(point.values[x_key][0], point.values[y_key][0], "*", ms=12, color="#444444", label=name)
    axes.set_xlabel(x_title)
    axes.set_title(y_title, loc="left", fontsize=9)
    axes.margins(0.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    axes.ticklabel_format(useOffset=False, style="plain")


def _marker(number: int) -> str:
    return _MARKERS[number % len(_MARKERS)]


def _colour(number: int) -> str:
    return PALETTE[number % len(PALETTE)]
