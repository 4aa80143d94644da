"""The simulated world: reproducible, plausible, and true to its own truth."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from peso.data.simulate import SimulationSettings, simulate
from peso.data.statistics import block_statistics
from peso.errors import DataError
from peso.semantic_ids.catalogue import build_semantic_ids

SETTINGS = SimulationSettings(num_users=200, num_items=400, seed=3)


def test_same_seed_same_world() -> None:
    assert simulate(SETTINGS).dataset.fingerprint == simulate(SETTINGS).dataset.fingerprint
    other = SETTINGS.model_copy(update={"seed": 4})
    assert simulate(SETTINGS).dataset.fingerprint != simulate(other).dataset.fingerprint


def test_nobody_takes_an_item_twice_or_before_it_appears() -> None:
    world = simulate(SETTINGS)
    dataset = world.dataset
    pairs = np.stack([dataset.event_user, dataset.event_item], axis=1)
    assert len(np.unique(pairs, axis=0)) == dataset.num_events
    assert (world.items.first_block[dataset.event_item] <= dataset.event_block).all()


def test_every_kind_of_user_and_item_occurs() -> None:
    world = simulate(SETTINGS)
    statistics = block_statistics(world.dataset)
    assert (statistics["new_items"] > 0).all()
    later = statistics.filter(pl.col("block") > 0)
    assert (later["users"] > later["users_with_earlier_history"]).all()
    dormant = np.flatnonzero(world.user_kinds == "dormant")
    blocks = world.dataset.event_block[np.isin(world.dataset.event_user, dormant[1:])]
    assert set(blocks.tolist()) == {0, 3, 4}


def test_codes_follow_the_planted_tree_and_some_collide() -> None:
    world = simulate(SETTINGS)
    assert (world.source_codes[:, 0] == world.items.genre).all()
    assert len(np.unique(world.source_codes, axis=0)) < world.dataset.num_items


def test_users_choose_by_taste() -> None:
    world = simulate(SETTINGS)
    dataset = world.dataset
    genres = world.items.genre[dataset.event_item]
    taste = 0.5 * world.lasting[dataset.event_user] + 0.5 * world.drifting[dataset.event_block, dataset.event_user]
    chosen = taste[np.arange(dataset.num_events), genres].mean()
    assert chosen > 1.5 / world.items.num_genres


def test_truth_is_saved(tmp_path: Path) -> None:
    world = simulate(SETTINGS)
    world.save_truth(tmp_path / "truth")
    tastes = pl.read_parquet(tmp_path / "truth" / "tastes.parquet")
    assert len(tastes) == 200 * 5
    assert pl.read_parquet(tmp_path / "truth" / "users.parquet")["kind"].to_list() == world.user_kinds.tolist()


def test_active_users_have_enough_events_to_be_judged() -> None:
    dataset = simulate(SETTINGS).dataset
    counts = np.zeros((dataset.num_users, dataset.num_blocks), dtype=int)
    np.add.at(counts, (dataset.event_user, dataset.event_block), 1)
    assert counts[:, 0][counts[:, 0] > 0].min() >= 5
    assert counts[:, 1:][counts[:, 1:] > 0].min() >= 3


def test_the_last_item_says_something_about_the_next() -> None:
    world = simulate(SETTINGS)
    dataset = world.dataset
    same_user = np.diff(dataset.event_user) == 0
    theme = world.items.theme[dataset.event_item]
    share = (theme[1:] == theme[:-1])[same_user].mean()
    by_chance = (np.bincount(theme) / len(theme)) @ (np.bincount(theme) / len(theme))
    assert share > 0.4 > 5 * by_chance


def test_items_of_a_block_are_popular_when_they_are_new() -> None:
    items = simulate(SETTINGS).items
    new, old = items.first_block == 1, items.first_block == 0
    np.testing.assert_allclose(items.popularity(1)[new], 3 * items.appeal[new])
    np.testing.assert_allclose(items.popularity(2)[new], 2 * items.appeal[new])
    np.testing.assert_allclose(items.popularity(2)[old], items.appeal[old])


@pytest.mark.parametrize("num_items", [1536, 1537, 5000])
def test_a_large_catalogue_has_a_code_for_every_item(num_items: int) -> None:
    world = simulate(SimulationSettings(num_users=10, num_items=num_items))
    ids = build_semantic_ids(world.dataset, world.source_codes, world.level_sizes)
    assert len(np.unique(ids.codes, axis=0)) == num_items


def test_too_few_items_are_refused() -> None:
    with pytest.raises(DataError, match="simulate more than 20 items"):
        simulate(SimulationSettings(num_users=10, num_items=20))


def test_the_smallest_worlds_are_possible() -> None:
    for seed in range(3):
        simulate(SimulationSettings(num_users=10, num_items=120, num_blocks=2, seed=seed))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6])
def test_the_share_of_dormant_users_is_what_was_asked_for(share: float) -> None:
    kinds = simulate(SETTINGS.model_copy(update={"num_users": 1000, "dormant_share": share})).user_kinds
    assert (kinds == "dormant").mean() == pytest.approx(share, abs=0.05)
    assert (kinds == "steady").mean() == pytest.approx((1 - share) * 0.35 / 0.8, abs=0.06)
