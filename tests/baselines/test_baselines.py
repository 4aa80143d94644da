"""Rivals without a network: by hand, without leaks, and on real data."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalogues import shop_dataset
from peso.baselines.neighbours import NeighbourCounts
from peso.baselines.popularity import PopularInBlock, PopularSoFar
from peso.baselines.run import BASELINES, run_baselines
from peso.baselines.successor import Successor
from peso.baselines.text import text_rivals
from peso.baselines.text_neighbours import text_neighbours
from peso.config import MemoryConfig
from peso.data.dataset import Dataset
from peso.data.examples import has_repeats, targets_of_block
from peso.data.list_rules import ListRules
from peso.data.sources.peso_release import read_peso_release
from peso.data.storage import save_dataset
from peso.files import read_json
from peso.memory.weights import usual_weights
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from worlds import tiny_dataset

KNOWN = ListRules("known", excludes_history=False)
NAMES = ("popular", "popular_in_block", "successor", "neighbours")


def by_hand() -> Dataset:
    """Three users with items in block 0 and block 1; the last two events of each block are never trained on."""
    sequences = [([0, 1, 2, 3], [4, 1, 5, 6]), ([0, 1, 7, 8], []), ([9, 0, 2, 3], [4, 8, 7, 1])]
    users, items, blocks = [], [], []
    for user, (first, second) in enumerate(sequences):
        users += [user] * (len(first) + len(second))
        items += first + second
        blocks += [0] * len(first) + [1] * len(second)
    names = [str(number) for number in range(10)]
    return Dataset(["a", "b", "c"], names, names, np.array(users), np.array(items), np.array(blocks), 2)


def test_lists_by_hand() -> None:
    dataset, everything = by_hand(), np.arange(10)
    targets = targets_of_block(dataset, 1, "test")
    # Trained on in block 1: 4 1 | 4 8. All of block 0 counts too.
    assert PopularInBlock(dataset, 1).lists(targets, 4, everything)[0].tolist() == [4, 1, 8, -1]
    assert PopularSoFar(dataset, 1).lists(targets, 3, everything)[0].tolist() == [0, 1, 2]
    # User a's last item is 5, which nothing has followed yet; user c's is 7, which 8 followed once.
    lists = Successor(dataset, 1).lists(targets, 4, everything)
    assert lists[0].tolist() == [4, 1, 8, 0]
    assert lists[1].tolist() == [8, 4, 1, 0]
    without = Successor(dataset, 1).lists(targets, 4, np.setdiff1d(everything, [8]))
    assert without[1].tolist() == [4, 1, 0, 2]


def test_neighbours_by_hand() -> None:
    """User b ended block 0 with 0 1 7 8; of what is known, 0 1 2 3 and 9 0 2 3 stand near them."""
    dataset = by_hand()
    targets = targets_of_block(dataset, 1, "test")
    lists = NeighbourCounts(dataset, 1).lists(targets, 10, np.arange(10))
    defaults, counts, num_taken = MemoryConfig(), np.zeros((10, 10)), np.zeros(10)
    usual = usual_weights(defaults, num_levels=1, has_content=False)
    for known in ([0, 1, 2, 3, 4, 1], [0, 1, 7, 8], [9, 0, 2, 3, 4, 8]):
        np.add.at(num_taken, known, 1)
        for late in range(len(known)):
            age = 1.0 if late >= 4 else defaults.decay  # four events of block 0, then those of the newest block
            for distance, weight in enumerate(usual.distance_weights, start=1):
                if distance <= late:
                    counts[known[late - distance], known[late]] += age * weight
                    counts[known[late], known[late - distance]] += age * weight * usual.backward
    counts /= np.maximum(num_taken, 1)[:, None] ** defaults.discount
    for listed, history in zip(lists, ([0, 1, 2, 3, 4, 1, 5], [9, 0, 2, 3, 4, 8, 7]), strict=True):
        weights = sum(w * counts[item] for w, item in zip(usual.lag_weights, history[::-1], strict=False))
        weights[history] *= has_repeats(dataset)
        found = listed[: int((weights > 0).sum())]
        assert np.all(np.diff(weights[found]) <= 1e-12) and np.all(weights[found] > 0)
        assert len(set(listed[listed >= 0].tolist())) == int((listed >= 0).sum())


class FixedCounts(NeighbourCounts):
    """Counts that leave nothing open, so that there is nothing to choose on validation targets."""

    memory = MemoryConfig(lag_weights=(1.0, 0.5), distance_weights=(1.0, 0.5), backward=0.5, strength=1.0)


@pytest.mark.parametrize("baseline", [*BASELINES, FixedCounts])
def test_lists_do_not_depend_on_what_may_not_be_known(baseline: type) -> None:
    """Validation targets may decide how neighbours are counted, and nothing else; they are never counted."""
    dataset = tiny_dataset(30, 40, 3)
    held_out = [targets_of_block(dataset, 1, "test")]
    held_out += [] if baseline is NeighbourCounts else [targets_of_block(dataset, 1, "valid")]
    hidden = (dataset.event_block > 1) | np.isin(np.arange(dataset.num_events), np.concatenate(held_out))
    items = dataset.event_item.copy()
    items[hidden] = (items[hidden] + 7) % 40
    changed = Dataset(
        dataset.user_ids, dataset.item_ids, dataset.titles, dataset.event_user, items, dataset.event_block, 3
    )
    targets = targets_of_block(dataset, 1, "train")
    lists = baseline(dataset, 1).lists(targets, 5, np.arange(40))
    assert lists.tolist() == baseline(changed, 1).lists(targets, 5, np.arange(40)).tolist()
    for row in lists:
        named = row[row >= 0]
        assert len(set(named.tolist())) == len(named)


@pytest.mark.parametrize("baseline", BASELINES)
def test_lists_of_test_targets_do_not_depend_on_the_test_events(baseline: type) -> None:
    dataset = tiny_dataset(30, 40, 3)
    targets = targets_of_block(dataset, 1, "test")
    items = dataset.event_item.copy()
    hidden = np.r_[targets, np.flatnonzero(dataset.event_block > 1)]
    items[hidden] = (items[hidden] + 7) % 40
    changed = Dataset(
        dataset.user_ids, dataset.item_ids, dataset.titles, dataset.event_user, items, dataset.event_block, 3
    )
    lists = baseline(dataset, 1).lists(targets, 10, np.arange(40))
    assert lists.tolist() == baseline(changed, 1).lists(targets, 10, np.arange(40)).tolist()


def test_results_are_written_once_per_data_and_match_their_rows(tmp_path: Path) -> None:
    dataset = tiny_dataset(30, 40, 3)
    folders = run_baselines(dataset, tmp_path, KNOWN)
    assert [folder.name for folder in folders] == [f"{name}-known-repeats-allowed" for name in NAMES]
    for folder in folders:
        result = read_json(folder / "result.json", "result")
        targets = pl.read_parquet(folder / "targets.parquet").filter(protocol="in_block", block=2)
        hits = targets["rank"].is_not_null().sum()
        assert result["blocks"][-1]["hit@10"] == pytest.approx(hits / len(targets))
        assert result["seed"] is None
        assert result["mean"]["log_likelihood"] is None
        assert result["dataset"]["num_events"] == dataset.num_events
        recommended = pl.read_parquet(folder / "recommendations.parquet")
        assert recommended["position"].max() == 10
        assert recommended["score"].null_count() == len(recommended)
    written = [(folder / "result.json").stat().st_mtime_ns for folder in folders]
    assert [(f / "result.json").stat().st_mtime_ns for f in run_baselines(dataset, tmp_path, KNOWN)] == written
    other = tiny_dataset(30, 40, 3, seed=1)
    run_baselines(other, tmp_path, KNOWN)
    assert read_json(folders[0] / "result.json", "result")["data_fingerprint"] == other.fingerprint


def test_lists_leave_out_what_the_user_took(tmp_path: Path) -> None:
    dataset = tiny_dataset(30, 40, 3)
    for folder in run_baselines(dataset, tmp_path, ListRules("known", excludes_history=True)):
        lists = pl.read_parquet(folder / "recommendations.parquet")
        for row in lists.iter_rows(named=True):
            user = dataset.user_number(row["user_id"])
            tested = targets_of_block(dataset, row["model_block"], "test")
            target = tested[dataset.event_user[tested] == user][0]
            history = dataset.event_item[dataset.user_offsets[user] : target]
            assert dataset.item_ids.index(row["item_id"]) not in history.tolist()
        assert lists.group_by("user_id", "model_block").len()["len"].max() == 10


def test_real_release(shared_data: Path, tmp_path: Path) -> None:
    imported = read_peso_release(shared_data / "peso-release" / "Video_Games_cl_0.6_0_5_3_0")
    rules = ListRules("all", excludes_history=False)
    results = [read_json(f / "result.json", "result") for f in run_baselines(imported.dataset, tmp_path, rules)]
    popular, in_block, successor, neighbours = (result["mean"]["ndcg@10"] for result in results)
    assert popular == pytest.approx(0.0130, abs=0.0002)
    assert in_block == pytest.approx(0.0162, abs=0.0002)
    assert successor == pytest.approx(0.0279, abs=0.0002)
    assert neighbours == pytest.approx(0.0490, abs=0.0003)
    assert [block["num_targets"] for block in results[0]["blocks"]] == [1035, 1091, 1949, 1791]


def test_text_neighbours_by_hand() -> None:
    """Item 9 of the history weighs 1 and item 8 before it 0.8; items 1 and 2 lie along them, 3 between, 4 opposite."""
    dataset = Dataset(["a"], [str(n) for n in range(10)], [""] * 10, np.zeros(4, dtype=np.int64),
                      np.array([8, 9, 1, 2]), np.array([0, 0, 1, 1]), 2)  # fmt: skip
    vectors = np.zeros((10, 2), dtype=np.float32)
    vectors[[9, 1]], vectors[[8, 2]], vectors[3], vectors[4] = [3, 0], [0, 5], [1, 1], [-1, -1]
    rival = text_neighbours(vectors)
    (listed,) = rival(dataset, 1).lists(np.array([2]), 5, np.array([1, 2, 3, 4, 5]))
    # Cosines to (1, 0.8): 1 for item 1's way, 0.8 for item 2's, 1.8 / sqrt 2 for item 3's, 0 for the unknown item 5.
    assert listed.tolist() == [3, 1, 2, 5, 4]
    (short,) = rival(dataset, 1).lists(np.array([2]), 2, np.array([1, 2, 3, 4, 5]))
    assert short.tolist() == [3, 1]
    (few,) = rival(dataset, 1).lists(np.array([2]), 3, np.array([2, 4]))
    assert few.tolist() == [2, 4, -1]
    assert rival.config() != text_neighbours(vectors[::-1].copy()).config()
    (popular,) = rival(dataset, 1).lists(np.array([0]), 3, np.array([1, 2, 3, 8, 9]))
    assert popular.tolist() == [1, 2, 8], "who has no history gets what is taken most, in this block first"


def test_the_rival_by_texts_is_there_where_peso_encoded_the_items(tmp_path: Path) -> None:
    dataset = shop_dataset()
    save_dataset(dataset, tmp_path / "data")
    assert text_rivals(tmp_path, dataset) == ()
    encode_workspace(tmp_path, EncodingRequest("tfidf", "rq-kmeans", (8, 8, 8)))
    (rival,) = text_rivals(tmp_path, dataset)
    (folder,) = run_baselines(dataset, tmp_path, ListRules("known", excludes_history=True), [rival])
    targets = pl.read_parquet(folder / "targets.parquet").filter(pl.col("protocol") == "in_block")
    # Users take goods of one kind, and titles of a kind are alike: new goods are found as well as known ones.
    assert targets["rank"].is_not_null().sum() > len(targets) / 2
