"""One self-contained HTML file about the data of a workspace."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from peso.data.importing import RECORD
from peso.data.storage import load_dataset
from peso.evaluation.data_card import BlockCard, block_cards
from peso.experiments.drawing import PALETTE, STYLE, as_svg
from peso.files import read_json, write_text

PAGE = "data.html"
_GROUPS = (("new", "num_new"), ("returning", "num_returning"), ("dormant", "num_dormant"))


def write_data_card(workspace: Path) -> dict[str, Any]:
    """Writes `data.html`.

    Args:
        workspace: with data.

    Returns:
        JSON values: the file (`report`), the account of the import (`import`, None where there is none) and a card per
        block (`blocks`).

    Raises:
        WorkspaceError: there is no data, or it is damaged.
    """
    dataset = load_dataset(workspace / "data")
    cards = block_cards(dataset)
    path = workspace / "data" / RECORD
    record = read_json(path, "account of an import") if path.exists() else None
    lengths = np.diff(dataset.user_offsets)
    environment = Environment(
        loader=PackageLoader("peso.experiments"), autoescape=select_autoescape(["jinja"]), undefined=StrictUndefined
    )
    page = environment.get_template("data.html.jinja").render(
        dataset=dataset,
        cards=cards,
        record=record,
        users=Markup(_users_picture(cards)),
        drift=Markup(_drift_picture(cards)),
        lengths=Markup(_lengths_picture(lengths[lengths > 0].tolist())),
    )
    write_text(workspace / PAGE, page)
    return {"report": str(workspace / PAGE), "import": record, "blocks": [asdict(card) for card in cards]}


def _users_picture(cards: Sequence[BlockCard]) -> str:
    """Later blocks' users by group; block 0 has new ones only."""
    later = cards[1:] or cards
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
        bottom = np.zeros(len(later))
        for (name, field), colour in zip(_GROUPS, PALETTE, strict=False):
            heights = np.array([getattr(card, field) for card in later])
            axes.bar([card.block for card in later], heights, bottom=bottom, label=name, color=colour, width=0.7)
            bottom += heights
        axes.set_xticks([card.block for card in later])
        axes.set(xlabel="block", ylabel="users")
        axes.set_ylim(0, 1.2 * bottom.max())
        axes.set_title("Who is there", loc="left")
        axes.legend(frameon=False, ncols=3, loc="upper left")
        return as_svg(figure)


def _drift_picture(cards: Sequence[BlockCard]) -> str:
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
        blocks = [card.block for card in cards[1:]]
        for name, field, colour in (
            ("popularity against the block before (bits)", "drift", PALETTE[0]),
            ("popularity against block 0 (bits)", "drift_from_base", PALETTE[1]),
            ("share of events with a new item", "share_of_new_items", PALETTE[2]),
        ):
            axes.plot(blocks, [getattr(card, field) for card in cards[1:]], marker="o", label=name, color=colour)
        axes.set_xticks(blocks)
        axes.set_ylim(0, 1.35)
        axes.set(xlabel="block")
        axes.set_title("What changes", loc="left")
        axes.legend(frameon=False, fontsize=7.5, loc="upper left")
        return as_svg(figure)


def _lengths_picture(lengths: Sequence[int]) -> str:
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
        edges = np.unique(np.round(np.geomspace(1, max(lengths) + 1, 24)))
        axes.hist(lengths, bins=edges.tolist(), color=PALETTE[0])
        axes.set_xscale("log")
        axes.set(xlabel="events of a user, all blocks", ylabel="users")
        axes.set_title("How long histories are", loc="left")
        return as_svg(figure)
