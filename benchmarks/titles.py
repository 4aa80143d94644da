"""The 3,686 real titles of MiniOneRec's Industrial and Scientific, or a simulated catalogue where they are absent."""

import ast
import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.data.simulate import SimulationSettings, simulate

NAME = "Industrial_and_Scientific"
NUM_ITEMS = 3686


@dataclass(frozen=True, eq=False)
class Titles:
    """A catalogue to encode.

    Attributes:
        dataset: block 0 holds the histories; every item occurs or not as it happens.
        brands: one per item, empty where unknown.
        released_codes: int64 [N, M] of somebody else's tokenizer, or None.
    """

    dataset: Dataset
    brands: list[str]
    released_codes: IntArray | None


def load_titles() -> Titles:
    """Reads the shared data, or simulates as many items."""
    folder = Path(os.environ.get("PESO_SHARED_DATA", "../shared/data")) / "amazon-text"
    if not folder.is_dir():
        dataset = simulate(SimulationSettings(num_users=4000, num_items=NUM_ITEMS)).dataset
        return Titles(dataset, [title.split(":")[0] for title in dataset.titles], None)
    catalogue = json.loads((folder / f"{NAME}.item.json").read_text(encoding="utf-8"))
    index = json.loads((folder / f"{NAME}.index.json").read_text(encoding="utf-8"))
    ids = sorted(catalogue, key=int)
    place = {int(item): number for number, item in enumerate(ids)}
    users: list[int] = []
    items: list[int] = []
    blocks: list[int] = []
    for block, part in enumerate(("valid", "test"), start=1):
        with (folder / f"{NAME}.{part}.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                history = [place[item] for item in ast.literal_eval(row["history_item_id"])]
                user = users[-1] + 1 if users else 0
                users += [user] * (len(history) + 1)
                items += [*history, place[int(row["item_id"])]]
                blocks += [0] * len(history) + [block]
    dataset = Dataset(
        [f"row {user}" for user in range(users[-1] + 1)],
        ids,
        [catalogue[item]["title"] for item in ids],
        np.array(users),
        np.array(items),
        np.array(blocks),
        3,
        "MiniOneRec, Industrial and Scientific",
    )
    codes = [[int(token.split("_")[1].rstrip(">")) for token in index[item]] for item in ids]
    return Titles(dataset, [catalogue[item]["brand"] for item in ids], np.array(codes, dtype=np.int64))
