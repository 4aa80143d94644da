"""A drifting world of its own: users whose tastes last and drift, who come, go and return; items that appear and fade.

Nothing is downloaded and the truth is known: what each user's lasting and drifting tastes were in every block. The
equations are in docs/simulated_world.md.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from peso.data.dataset import Dataset, IntArray
from peso.data.item_world import Items, make_items
from peso.errors import DataError
from peso.files import atomic_directory

FloatArray = NDArray[np.float64]

USER_KINDS = ("steady", "dormant", "early", "new")
"""Active in every block; in block 0 and again in the last two; in the first blocks only; from a later block on."""

_SHARES_OF_OTHERS = {"steady": 0.35, "early": 0.25, "new": 0.2}
"""How the users who are not dormant are split, in parts of their sum."""


class SimulationSettings(BaseModel):
    """What kind of world."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    num_users: int = Field(2000, ge=10)
    """Users, all kinds together."""
    num_items: int = Field(1500, ge=20)
    """Items, those of later blocks included."""
    num_blocks: int = Field(5, ge=2)
    """Blocks, the base included."""
    seed: int = Field(0, ge=0)
    """Decides everything."""
    lasting_share: float = Field(0.5, ge=0, le=1)
    """Weight of the lasting part of a taste; the rest drifts."""
    dormant_share: float = Field(0.2, ge=0, le=1)
    """Share of the users who are absent between block 0 and the last two; the other kinds keep their proportions."""
    drift: float = Field(0.8, ge=0)
    """Standard deviation of a drifting taste's step from block to block (in log-odds per genre)."""
    continuation: float = Field(0.55, ge=0, le=1)
    """Chance that the next item continues the last one: the next volume of its series, or another item of its theme."""
    later_item_share: float = Field(0.4, ge=0, lt=1)
    """Share of the items that appear after block 0, spread evenly."""
    first_block_events: int = Field(9, ge=5)
    """Mean events per active user in block 0 (at least 5)."""
    later_block_events: int = Field(6, ge=3)
    """Mean events per active user in a later block (at least 3)."""


@dataclass(frozen=True, eq=False)
class SimulatedWorld:
    """A data set and its truth.

    Attributes:
        dataset: events, with titles.
        source_codes: int64 [N, 3]: genre, theme within genre, place within theme. Places wrap around, so some items
            share a code, as the output of a trained quantizer does.
        level_sizes: codes per level.
        user_kinds: one of `USER_KINDS` per user.
        lasting: float64 [U, genres], each user's lasting taste, rows sum to 1.
        drifting: float64 [blocks, U, genres], the drifting part in each block, rows sum to 1.
        items: the planted catalogue.
    """

    dataset: Dataset
    source_codes: IntArray
    level_sizes: tuple[int, ...]
    user_kinds: NDArray[np.str_]
    lasting: FloatArray
    drifting: FloatArray
    items: Items

    def save_truth(self, folder: Path) -> None:
        """Writes `users.parquet`, `tastes.parquet` and `items.parquet`, replacing the folder."""
        num_blocks, num_users, num_genres = self.drifting.shape
        user_ids = np.asarray(self.dataset.user_ids)
        tastes = pl.DataFrame(
            {
                "block": np.repeat(np.arange(num_blocks), num_users),
                "user_id": np.tile(user_ids, num_blocks),
                "drifting": self.drifting.reshape(-1, num_genres),
            }
        )
        users = pl.DataFrame({"user_id": user_ids, "kind": self.user_kinds, "lasting": self.lasting})
        items = pl.DataFrame(
            {
                "item_id": np.asarray(self.dataset.item_ids),
                "genre": self.items.genre,
                "theme": self.items.theme,
                "appears_in_block": self.items.first_block,
            }
        )
        with atomic_directory(folder) as temporary:
            for name, frame in (("users", users), ("tastes", tastes), ("items", items)):
                frame.write_parquet(temporary / f"{name}.parquet")


def simulate(settings: SimulationSettings) -> SimulatedWorld:
    """Makes the world; the same settings give the same world.

    Args:
        settings: sizes, drift and seed.

    Raises:
        DataError: there are too few items for what each user takes, since nobody takes an item twice.
    """
    random = np.random.default_rng(settings.seed)
    items = make_items(settings.num_items, settings.num_blocks, settings.later_item_share, random)
    kinds = random.choice(len(USER_KINDS), size=settings.num_users, p=_kind_shares(settings.dormant_share))
    active = _activity(kinds, settings.num_blocks, random)
    lasting = random.dirichlet(np.full(items.num_genres, 0.3), size=settings.num_users)
    drifting = _drifting_tastes(settings, items.num_genres, random)

    shelves = [_Shelf.of(items, block) for block in range(settings.num_blocks)]
    rows: list[tuple[int, int, int]] = []
    for user in range(settings.num_users):
        is_free = np.ones(settings.num_items, dtype=bool)
        last = -1
        for block in np.flatnonzero(active[user]).tolist():
            taste = settings.lasting_share * lasting[user] + (1 - settings.lasting_share) * drifting[block, user]
            least, mean = (5, settings.first_block_events) if block == 0 else (3, settings.later_block_events)
            for _ in range(least + random.poisson(mean - least)):
                item = _next_item(items, shelves[block], taste, last, is_free, settings.continuation, random)
                if item is None:
                    raise DataError(
                        f"user number {user} has taken every item that exists by block {block}; simulate more than "
                        f"{settings.num_items} items, or fewer blocks or events."
                    )
                is_free[item] = False
                rows.append((user, item, block))
                last = item
    table = np.array(rows, dtype=np.int64)
    dataset = Dataset(
        [f"u{user:05d}" for user in range(settings.num_users)],
        [f"i{item:05d}" for item in range(settings.num_items)],
        items.titles,
        table[:, 0].copy(),
        table[:, 1].copy(),
        table[:, 2].copy(),
        settings.num_blocks,
        f"simulated world, seed {settings.seed}",
    )
    kind_names = np.asarray(USER_KINDS)[kinds]
    return SimulatedWorld(dataset, items.codes, items.level_sizes, kind_names, lasting, drifting, items)


def _kind_shares(dormant_share: float) -> list[float]:
    """The chance of each kind, in the order of `USER_KINDS`."""
    scale = (1 - dormant_share) / sum(_SHARES_OF_OTHERS.values())
    return [dormant_share if kind == "dormant" else scale * _SHARES_OF_OTHERS[kind] for kind in USER_KINDS]


def _activity(kinds: IntArray, num_blocks: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Who is active when, bool [U, blocks]; every user is active somewhere, every block has somebody."""
    active = np.zeros((len(kinds), num_blocks), dtype=bool)
    steady, dormant, early, new = (kinds == number for number in range(len(USER_KINDS)))
    active[steady] = True
    active[dormant, 0] = True
    active[np.ix_(dormant, range(max(1, num_blocks - 2), num_blocks))] = True
    active[early, 0] = True
    active[early, 1] = random.random(int(early.sum())) < 0.5
    starts = random.integers(1, num_blocks, size=int(new.sum()))
    active[new] = np.arange(num_blocks) >= starts[:, None]
    active[0] = True  # one user spans all blocks in the smallest of worlds too
    return active


def _drifting_tastes(settings: SimulationSettings, num_genres: int, random: np.random.Generator) -> FloatArray:
    """A random walk in log-odds, float64 [blocks, U, genres]; a common part makes genres trend for everyone."""
    own = random.normal(0, settings.drift, (settings.num_blocks, settings.num_users, num_genres))
    common = random.normal(0, 0.7 * settings.drift, (settings.num_blocks, 1, num_genres))
    own[0] += random.normal(0, 1.5, own[0].shape)
    log_odds = np.cumsum(own + common, axis=0)
    odds = np.exp(log_odds - log_odds.max(axis=2, keepdims=True))
    return odds / odds.sum(axis=2, keepdims=True)


@dataclass(frozen=True)
class _Shelf:
    """What can be taken in one block: ascending item numbers by theme and by genre, and popularity, float64 [N]."""

    by_theme: list[IntArray]
    by_genre: list[IntArray]
    everything: IntArray
    popularity: FloatArray

    @classmethod
    def of(cls, items: Items, block: int) -> "_Shelf":
        exists = items.first_block <= block
        return cls(
            [np.flatnonzero(exists & (items.theme == theme)) for theme in range(items.theme.max() + 1)],
            [np.flatnonzero(exists & (items.genre == genre)) for genre in range(items.num_genres)],
            np.flatnonzero(exists),
            items.popularity(block),
        )

    def draw(self, among: IntArray, is_free: NDArray[np.bool_], random: np.random.Generator) -> int | None:
        """A free one of the items, by popularity; None where none is free."""
        candidates = among[is_free[among]]
        if len(candidates) == 0:
            return None
        weights = self.popularity[candidates].cumsum()
        return int(candidates[weights.searchsorted(random.random() * weights[-1], side="right")])


def _next_item(
    items: Items,
    shelf: _Shelf,
    taste: FloatArray,
    last: int,
    is_free: NDArray[np.bool_],
    continuation: float,
    random: np.random.Generator,
) -> int | None:
    if last >= 0 and random.random() < continuation:
        following = last + 1  # the next volume has the next number; a series appears as a whole
        is_same_series = following < items.num_items and items.series[following] == items.series[last]
        if is_same_series and is_free[following]:
            return following
        sibling = shelf.draw(shelf.by_theme[items.theme[last]], is_free, random)
        if sibling is not None:
            return sibling
    for genre in random.choice(items.num_genres, size=4, p=taste).tolist():
        item = shelf.draw(shelf.by_genre[genre], is_free, random)
        if item is not None:
            return item
    return shelf.draw(shelf.everything, is_free, random)
