"""Small catalogues with texts that tests share."""

import numpy as np

from peso.data.dataset import Dataset
from peso.semantic_ids.encoders.base import ItemContents
from peso.semantic_ids.frozen import Vectors

KINDS = ("steel bolt", "nylon rope", "safety glove", "copper pipe", "wood screw")
SIZES = ("small", "large", "heavy duty", "long")


def shop_titles(num_items: int) -> list[str]:
    """Titles of five kinds of goods, all of them different."""
    return [f"{KINDS[n % 5]} {SIZES[n // 5 % 4]} no {n // 20}" for n in range(num_items)]


def shop_contents(num_items: int = 60) -> ItemContents:
    """Items of five kinds."""
    return ItemContents([f"item {n}" for n in range(num_items)], shop_titles(num_items))


def shop_dataset(num_items: int = 60, num_later: int = 15) -> Dataset:
    """Twenty users who each take items of one kind; the last `num_later` items appear in block 1 only."""
    random = np.random.default_rng(0)
    users, items, blocks = [], [], []
    early, late = np.arange(num_items - num_later), np.arange(num_items - num_later, num_items)
    for user in range(20):
        for block, among in enumerate((early, late)):
            own = among[among % 5 == user % 5]
            chosen = random.permutation(own)[:8]
            users += [user] * len(chosen)
            items += chosen.tolist()
            blocks += [block] * len(chosen)
    return Dataset(
        [f"user {n}" for n in range(20)],
        [f"item {n}" for n in range(num_items)],
        shop_titles(num_items),
        np.array(users),
        np.array(items),
        np.array(blocks),
        2,
        "shop",
    )


def clustered_vectors(num_items: int = 200, num_dimensions: int = 6, seed: int = 0) -> Vectors:
    """Eight clouds of points, float32 [num_items, num_dimensions]."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(8, num_dimensions))
    spread = 0.2 * random.normal(size=(num_items, num_dimensions))
    return (centres[np.arange(num_items) % 8] + spread).astype(np.float32)
