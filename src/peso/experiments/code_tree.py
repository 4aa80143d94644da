"""The tree of semantic IDs as one picture: every level a strip, every node as wide as the items behind it."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray

from peso.data.dataset import IntArray
from peso.experiments.drawing import STYLE, as_svg

_MOST_COLUMNS = 4000
_GOLDEN = 0.618033988749895
_NARROWEST_LABEL = 0.008
_DOTS_PER_INCH = 150
_ROWS_PER_STRIP = 24


def code_tree(codes: IntArray, names: Mapping[int, str]) -> str:
    """The picture as an `<svg>` element.

    Items stand side by side, those of the fullest first code on the left; a node has the hue of its first code, in a
    shade of its own.

    Args:
        codes: int64 [N, M].
        names: what first codes stand for; written over those wide enough.
    """
    num_items, num_levels = codes.shape
    counts = np.bincount(codes[:, 0])
    rank = np.argsort(np.argsort(-counts, kind="stable"))
    order = np.lexsort([codes[:, level] for level in range(num_levels - 1, 0, -1)] + [rank[codes[:, 0]]])
    columns = order[np.linspace(0, num_items - 1, min(num_items, _MOST_COLUMNS)).astype(np.int64)]
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(11, 0.45 * num_levels + 1.6), layout="constrained", dpi=_DOTS_PER_INCH)
        strips = np.repeat(_colours(codes[columns], rank), _ROWS_PER_STRIP, axis=0)  # smooth sideways only
        axes.imshow(strips, aspect="auto", interpolation="antialiased", extent=(0, 1, num_levels, 0))
        axes.set_yticks(np.arange(num_levels) + 0.5, [f"level {level + 1}" for level in range(num_levels)])
        axes.set_xticks(np.linspace(0, 1, 5), [f"{share * num_items:,.0f}" for share in np.linspace(0, 1, 5)])
        axes.set_xlabel("items, by code")
        left = 0.0
        for code in np.argsort(-counts, kind="stable").tolist():
            width = counts[code] / num_items
            if width >= _NARROWEST_LABEL and code in names:
                axes.text(left + width / 2, -0.08, names[code], ha="left", va="bottom", rotation=55, fontsize=7)
            left += width
        return as_svg(figure)


def _colours(codes: IntArray, rank: IntArray) -> NDArray[np.float64]:
    """RGB of every level and column, float64 [M, columns, 3]."""
    place = rank[codes[:, 0]]
    hue = 0.85 * place / (place.max() + 1)
    shades = [0.7 + 0.2 * (place % 2)]
    for level in range(1, codes.shape[1]):
        # A golden step apart, codes that follow each other differ most.
        shades.append(0.45 + 0.5 * ((codes[:, level] + 1) * _GOLDEN % 1))
    value = np.stack(shades)
    saturation = np.full_like(value, 0.55)
    return hsv_to_rgb(np.stack([np.broadcast_to(hue, value.shape), saturation, value], axis=-1))
