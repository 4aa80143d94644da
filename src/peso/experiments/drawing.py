"""What all pictures share: one look, colours that the colour-blind can tell apart, SVG text as the output."""

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "peso",
    "figure.facecolor": "white",
}

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#b5a642")
"""After Okabe and Ito; for lines that carry no colour of their own."""


def as_svg(figure: Figure) -> str:
    """The picture as an `<svg>` element; the same picture gives the same text. Closes the figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
