"""Every model on every block, as a table of coloured cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from peso.experiments.drawing import STYLE, as_svg


@dataclass(frozen=True, eq=False)
class ModelMatrix:
    """One metric of a stream of models.

    Attributes:
        title: what was measured of which method.
        values: R, float64 [T + 1, T]: row i is the model after block i, column j - 1 the targets of block j.
        digits: after the point.
    """

    title: str
    values: NDArray[np.float64]
    digits: int


def heat_maps(rows: Sequence[Sequence[ModelMatrix]]) -> str:
    """A panel per matrix; a cell's colour is its difference to the model that has just trained on the column's block.

    Args:
        rows: matrices of equal shape, in rows of equal metric, which share a colour scale.
    """
    num_models, num_blocks = rows[0][0].values.shape
    size = ((0.62 * num_blocks + 0.9) * len(rows[0]) + 1.2, (0.32 * num_models + 1.0) * len(rows))
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, all_axes = plt.subplots(len(rows), len(rows[0]), figsize=size, layout="constrained", squeeze=False)
        for line, matrices in zip(all_axes, rows, strict=True):
            gaps = [matrix.values - np.diagonal(matrix.values[1:])[None] for matrix in matrices]
            largest = max(float(np.abs(gap).max()) for gap in gaps) or 1.0
            for axes, matrix, gap in zip(line, matrices, gaps, strict=True):
                image = axes.imshow(gap, aspect="auto", cmap="RdBu", vmin=-largest, vmax=largest)
                for (model, column), value in np.ndenumerate(matrix.values):
                    shade = "white" if abs(gap[model, column]) > 0.6 * largest else "black"
                    axes.text(
                        column, model, f"{value:.{matrix.digits}f}", ha="center", va="center", fontsize=7.5, color=shade
                    )
                axes.set_xticks(range(num_blocks), [str(block + 1) for block in range(num_blocks)])
                axes.set_yticks(range(num_models), [str(model) for model in range(num_models)])
                axes.set_title(matrix.title, loc="left", fontsize=9)
            figure.colorbar(image, ax=line.tolist(), label="difference to diagonal")
        figure.supxlabel("block of the test targets", fontsize=9)
        figure.supylabel("model after block", fontsize=9)
        return as_svg(figure)
