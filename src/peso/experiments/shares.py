"""How far updates went along each direction, beside what Proposition 1 predicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt

from peso.experiments.drawing import PALETTE, STYLE, as_svg


@dataclass(frozen=True)
class ShareCurve:
    """One configuration.

    Attributes:
        values: rho at the middle of each bin of directions, falling.
        measured: share of the unanchored move in each bin.
        predicted: the share that Proposition 1 gives; None where the strength has no lambda.
    """

    values: Sequence[float]
    measured: Sequence[float]
    predicted: Sequence[float] | None


def shares_picture(curves: Mapping[str, ShareCurve]) -> str:
    """Dots for what was measured, dashed lines for what is predicted, over rho on a logarithmic axis.

    Args:
        curves: by name.

    Returns:
        SVG text.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
        for number, (name, curve) in enumerate(curves.items()):
            colour = PALETTE[number % len(PALETTE)]
            axes.plot(curve.values, curve.measured, marker="o", ms=4, lw=1.2, color=colour, label=name)
            if curve.predicted is not None:
                axes.plot(curve.values, curve.predicted, ls="--", lw=1.2, color=colour)
        axes.plot([], [], ls="--", color="#444444", label=r"$\rho / (\rho + \lambda)$")
        axes.set_xscale("log")
        axes.set_xlabel(r"$\rho$: what the block's data say about a direction")
        axes.set_title("share of the way that single went", loc="left", fontsize=9)
        axes.axhline(1.0, color="#444444", lw=0.8, ls=":")
        axes.axhline(0.0, color="#444444", lw=0.8, ls=":")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return as_svg(figure)
