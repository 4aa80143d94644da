"""Pictures of a workspace's results, as SVG text that stands inside a page."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

from peso.evaluation.groups import USER_GROUPS
from peso.evaluation.significance import BlockMean, block_means
from peso.experiments.drawing import STYLE, as_svg
from peso.experiments.results import Variant

NUM_RESAMPLES = 1000
_COLOURS = {
    "popular": "#8c8c8c",
    "popular_in_block": "#b5a642",
    "successor": "#cc79a7",
    "neighbours": "#d55e00",
    "frozen": "#56b4e9",
    "single": "#e69f00",
    "peso": "#0072b2",
}
_DASHES = ("-", "--", ":", "-.")


def metric_per_block(variants: Sequence[Variant], metric: str, protocol: str, title: str) -> str:
    """A line per variant over later blocks with 95 % intervals."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
        for number, (variant, means) in enumerate(_means(variants, metric, protocol)):
            blocks = np.array([mean.block for mean in means if mean.block is not None], dtype=float)
            kept = [mean for mean in means if mean.block is not None]
            middle = np.array([mean.mean for mean in kept])
            error = np.array([[m.mean - m.low for m in kept], [m.high - m.mean for m in kept]]).clip(0)
            shift = 0.06 * (number - len(variants) / 2)
            axes.errorbar(blocks + shift, middle, yerr=error, capsize=2, marker="o", markersize=4, lw=1.4,
                          label=variant.name, **_look(variant, variants))  # fmt: skip
            axes.set_xticks(blocks)
        axes.set_xlabel("block of the targets")
        axes.set_ylabel(metric + (" (nats)" if metric == "log_likelihood" else ""))
        axes.set_title(title, loc="left")
        _legend(axes)
        return as_svg(figure)


def metric_by_group(variants: Sequence[Variant], metric: str) -> str:
    """Bars per user group and per kind of item: who gains from updating, who loses."""
    labels = [*USER_GROUPS, "known item", "new item"]
    filters = [pl.col("group") == group for group in USER_GROUPS] + [~pl.col("is_new_item"), pl.col("is_new_item")]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
        width = 0.8 / max(1, len(variants))
        for number, variant in enumerate(variants):
            targets = variant.targets("in_block").filter(pl.col("block") > 0)
            bars = []
            for chosen in filters:
                part = targets.filter(chosen)
                means = block_means(part, metric, NUM_RESAMPLES) if len(part) else [BlockMean(None, 0, 0, 0, 0)]
                bars.append(means[-1])
            places = np.arange(len(labels)) + (number - (len(variants) - 1) / 2) * width
            middle = np.array([bar.mean for bar in bars])
            error = np.array([[b.mean - b.low for b in bars], [b.high - b.mean for b in bars]]).clip(0)
            axes.bar(places, middle, width, yerr=error, label=variant.name, color=_colour(variant),
                     error_kw={"lw": 0.8}, hatch=_hatch(variant, variants), edgecolor="white")  # fmt: skip
        axes.set_xticks(range(len(labels)), labels)
        axes.set_ylabel(metric)
        axes.set_title("By user group and by novelty of the item, blocks 1 and later", loc="left")
        _legend(axes)
        return as_svg(figure)


def gradient_ratio(variants: Sequence[Variant]) -> str | None:
    """The part of the proximal term in a step relative to the cross-entropy's, epoch by epoch; None without one."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.6, 3.0), layout="constrained")
        is_empty = True
        for variant in variants:
            rows = [row for row in _training(variant) if row["gradient_ratio"] is not None]
            if rows:
                is_empty = False
                places = [row["block"] + (row["epoch"] - 1) / _epochs(rows) for row in rows]
                axes.plot(places, [row["gradient_ratio"] for row in rows], marker=".", label=variant.name,
                          **_look(variant, variants))  # fmt: skip
        if is_empty:
            plt.close(figure)
            return None
        axes.set_yscale("log")
        axes.set_xlabel("block (a dot per epoch)")
        axes.set_ylabel("anchor / cross-entropy")
        axes.set_title("The anchor's part of a step, over the loss's", loc="left")
        _legend(axes)
        return as_svg(figure)


def movement(variants: Sequence[Variant]) -> str | None:
    """How far each layer's adapter moved in all updates together; None when nothing moved."""
    moving = [variant for variant in variants if variant.runs[0].result["movement"]]
    if not moving:
        return None
    tables = [_movement_by_layer(variant.runs[0].result["movement"]) for variant in moving]
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, all_axes = plt.subplots(
            1, len(moving), figsize=(3.6 * len(moving) + 0.6, 3.2), layout="constrained", squeeze=False
        )
        highest = max(float(values.max()) for _, _, values in tables)
        for axes, variant, (layers, blocks, values) in zip(all_axes[0], moving, tables, strict=True):
            image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=highest)
            axes.set_xticks(range(len(blocks)), [str(block) for block in blocks])
            axes.set_yticks(range(len(layers)), layers)
            axes.set_xlabel("block")
            axes.set_title(variant.name, loc="left")
        figure.colorbar(image, ax=all_axes[0].tolist(), label="distance moved (L2)")
        return as_svg(figure)


def loss_curves(variants: Sequence[Variant]) -> str:
    """Training and validation loss per epoch, a panel per block; the kept epoch is marked."""
    rows_of = {variant.name: _training(variant) for variant in variants}
    blocks = sorted({row["block"] for rows in rows_of.values() for row in rows})
    with plt.rc_context(STYLE):
        figure, all_axes = plt.subplots(
            1, max(1, len(blocks)), figsize=(2.3 * max(1, len(blocks)) + 0.5, 2.6), layout="constrained", squeeze=False
        )
        for axes, block in zip(all_axes[0], blocks, strict=False):
            for variant in variants[-1:] if block == 0 else variants:
                rows = [row for row in rows_of[variant.name] if row["block"] == block]
                if not rows:
                    continue
                places = range(1, len(rows) + 1)
                look = {"color": _colour(variant)} if block else {"color": "#444444"}
                # A block without validation targets has a line of training losses alone.
                validated = np.array([row["valid_loss"] for row in rows], dtype=float)
                axes.plot(places, validated, label=variant.name, **look)
                axes.plot(places, [row["train_loss"] for row in rows], lw=0.8, ls=":", **look)
                kept = [row["selected"] for row in rows]
                axes.plot(np.array(places)[kept], validated[kept], "o", ms=5, **look)
            axes.set_title("block 0 (base)" if block == 0 else f"block {block}", loc="left")
            axes.set_xlabel("epoch")
        all_axes[0][0].set_ylabel("nats per target")
        return as_svg(figure)


def _means(variants: Sequence[Variant], metric: str, protocol: str) -> list[tuple[Variant, list[BlockMean]]]:
    found = []
    for variant in variants:
        targets = variant.targets(protocol)
        if metric == "log_likelihood":
            is_measured = len(targets) > 0 and targets["log_likelihood"].null_count() == 0
        else:
            is_measured = len(targets) > 0 and bool(targets["is_ranked"].all())
        if is_measured:
            found.append((variant, block_means(targets, metric, NUM_RESAMPLES)))
    return found


def _movement_by_layer(entries: list[dict[str, Any]]) -> tuple[list[str], list[int], np.ndarray]:
    def layer_of(group: str) -> str:
        parts = group.split(".")
        if parts[0] != "layers":
            return f"{parts[0]} rows"
        return f"layer {parts[1]} {'A' if group.endswith('lora_A') else 'B'}"

    frame = pl.DataFrame(entries).with_columns(layer=pl.col("group").map_elements(layer_of, return_dtype=pl.String))
    table = frame.group_by("layer", "block").agg(distance=pl.col("distance").pow(2).sum().sqrt())
    layers, blocks = sorted(table["layer"].unique()), sorted(table["block"].unique())
    values = np.zeros((len(layers), len(blocks)))
    for row in table.iter_rows(named=True):
        values[layers.index(row["layer"]), blocks.index(row["block"])] = row["distance"]
    return layers, blocks, values


def _training(variant: Variant) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = variant.runs[0].result["training"]
    return rows


def _epochs(rows: list[dict[str, Any]]) -> int:
    return max(row["epoch"] for row in rows)


def _colour(variant: Variant) -> str:
    return _COLOURS.get(variant.method, "#009e73")


def _same_method(variant: Variant, variants: Sequence[Variant]) -> int:
    return [other.name for other in variants if other.method == variant.method].index(variant.name)


def _look(variant: Variant, variants: Sequence[Variant]) -> dict[str, Any]:
    return {"color": _colour(variant), "ls": _DASHES[_same_method(variant, variants) % len(_DASHES)]}


def _hatch(variant: Variant, variants: Sequence[Variant]) -> str:
    return ("", "//", "..", "xx")[_same_method(variant, variants) % 4]


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
