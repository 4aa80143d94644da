"""Rivals of the library `implicit`: by hand, without leaks, the same for the same seed."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from peso.baselines.base import Baseline
from peso.baselines.bpr import Bpr
from peso.baselines.classical import require_library, taken_items
from peso.baselines.item_knn import ItemKnn, ItemKnnSettings
from peso.baselines.run import run_baselines
from peso.data.dataset import Dataset
from peso.data.examples import targets_of_block
from peso.data.list_rules import ListRules
from peso.errors import InstallationError
from peso.files import read_json
from worlds import tiny_dataset

needs_library = pytest.mark.skipif(importlib.util.find_spec("implicit") is None, reason="needs the extra bench")
BOTH: list[type[Baseline]] = [ItemKnn, Bpr]


def by_hand() -> Dataset:
    """Known in block 0: users a, b and c took 0 and 1, a also 2, d took 3 and 4, e took 3."""
    taken = [[0, 1, 2], [0, 1], [1, 0], [3, 4], [3]]
    users, items = [], []
    for user, known in enumerate(taken):
        hidden = [5, 6] if len(known) > 1 else []  # the last two of three or more events are not trained on
        users += [user] * len([*known, *hidden])
        items += [*known, *hidden]
    names = [str(number) for number in range(7)]
    return Dataset(list("abcde"), names, names, np.array(users), np.array(items), np.zeros(len(users), dtype=int), 1)


def changed_where(dataset: Dataset, hidden: np.ndarray) -> Dataset:
    items = dataset.event_item.copy()
    items[hidden] = (items[hidden] + 7) % dataset.num_items
    return Dataset(
        dataset.user_ids, dataset.item_ids, dataset.titles, dataset.event_user, items, dataset.event_block, 3
    )


@needs_library
def test_neighbours_by_hand() -> None:
    dataset, everything = by_hand(), np.arange(7)
    fitted = ItemKnn(dataset, 0)
    # Cosines: 0 and 1 share all three users, 1; 0 and 2 (as 1 and 2) one of three and one, 1 / sqrt(3);
    # 3 and 4 share one of two and one, 1 / sqrt(2). Popularity: 0 and 1 thrice, 3 twice, 2 and 4 once.
    second_of_b = np.array([dataset.user_offsets[1] + 1])  # history: 0
    assert fitted.lists(second_of_b, 5, everything).tolist() == [[1, 2, 0, 3, 4]]
    assert fitted.lists(second_of_b, 5, np.array([2, 3, 4])).tolist() == [[2, 3, 4, -1, -1]]
    third_of_b = second_of_b + 1  # history: 0 and 1; item 2 is a neighbour of both, 2 / sqrt(3)
    assert fitted.lists(third_of_b, 3, everything).tolist() == [[2, 0, 1]]
    second_of_d = np.array([dataset.user_offsets[3] + 1])  # history: 3
    assert fitted.lists(second_of_d, 3, everything).tolist() == [[4, 0, 1]]
    first_of_d = np.array([dataset.user_offsets[3]])
    assert fitted.lists(first_of_d, 3, everything).tolist() == [[0, 1, 3]]


@needs_library
def test_only_the_nearest_neighbours_and_the_last_items_count() -> None:
    class One(ItemKnn):
        settings = ItemKnnSettings(num_neighbours=1, max_history=1)

    dataset = by_hand()
    # The nearest of item 1 is 0 alone, and of the history 0, 1 item 1 alone has a say.
    third_of_b = np.array([dataset.user_offsets[1] + 2])
    assert One(dataset, 0).lists(third_of_b, 2, np.array([0, 2, 4])).tolist() == [[0, 2]]


@needs_library
def test_a_repeated_pair_counts_once() -> None:
    dataset = by_hand()
    matrix = taken_items(dataset, np.r_[np.arange(3), np.arange(3)])
    assert matrix.toarray()[0].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert matrix.sum() == 3.0


@needs_library
def test_factors_find_two_groups_of_users_and_do_not_know_strangers() -> None:
    generator = np.random.default_rng(0)
    users, items = [], []
    for user in range(40):  # even users take items 0 to 9, odd ones 10 to 19, six each, of which four are known
        users += [user] * 6
        items += (10 * (user % 2) + generator.permutation(10)[:6]).tolist()
    users += [40] * 3  # one known event of group 0 ...
    items += [0, 1, 2]
    users += [41] * 3  # ... and a user of block 1 only
    items += [3, 4, 5]
    blocks = [0] * (len(users) - 3) + [1] * 3
    names = [str(number) for number in range(20)]
    people = [str(number) for number in range(42)]
    dataset = Dataset(people, names, names, np.array(users), np.array(items), np.array(blocks), 2)
    fitted = Bpr(dataset, 0)
    targets = targets_of_block(dataset, 0, "test")[:40]
    lists = fitted.lists(targets, 10, np.arange(20))
    own_group = lists // 10 == (dataset.event_user[targets] % 2)[:, None]
    assert own_group.mean() > 0.95
    strangers = fitted.lists(np.array([dataset.user_offsets[41]]), 5, np.arange(20))
    assert strangers[0].tolist() == fitted.most_frequent(fitted.known_events, 5, np.arange(20)).tolist()


@needs_library
def test_factors_are_decided_by_the_seed() -> None:
    class Other(Bpr):
        settings = replace(Bpr.settings, seed=1)

    dataset = tiny_dataset(30, 40, 3)
    targets = targets_of_block(dataset, 1, "test")
    first, second, other = (kind(dataset, 1).lists(targets, 10, np.arange(40)) for kind in (Bpr, Bpr, Other))
    assert first.tolist() == second.tolist()
    assert first.tolist() != other.tolist()


@needs_library
@pytest.mark.parametrize("kind", BOTH)
def test_what_may_not_be_known_changes_nothing(kind: type[Baseline]) -> None:
    dataset = tiny_dataset(30, 40, 3)
    valid, test = targets_of_block(dataset, 1, "valid"), targets_of_block(dataset, 1, "test")
    later = np.flatnonzero(dataset.event_block > 1)
    for targets, hidden in (
        (targets_of_block(dataset, 1, "train"), np.r_[valid, test, later]),
        (test, np.r_[test, later]),
    ):
        changed = changed_where(dataset, hidden)
        lists = [kind(data, 1).lists(targets, 10, np.arange(40)) for data in (dataset, changed)]
        assert lists[0].tolist() == lists[1].tolist()
        assert all(len(set(row)) == len(row) for row in lists[0].tolist())


@needs_library
def test_results_follow_the_rules_and_are_measured_anew_with_other_settings(tmp_path: Path) -> None:
    class Quick(Bpr):
        settings = replace(Bpr.settings, epochs=2)

    dataset, rules = tiny_dataset(30, 40, 3), ListRules("known", excludes_history=True)
    folders = run_baselines(dataset, tmp_path, rules, BOTH)
    assert [folder.name for folder in folders] == ["item_knn-known-repeats-excluded", "bpr-known-repeats-excluded"]
    for folder in folders:
        lists = pl.read_parquet(folder / "recommendations.parquet")
        for row in lists.iter_rows(named=True):
            tested = targets_of_block(dataset, row["model_block"], "test")
            target = tested[dataset.event_user[tested] == dataset.user_number(row["user_id"])][0]
            before = dataset.event_item[dataset.user_offsets[dataset.event_user[target]] : target]
            assert dataset.item_ids.index(row["item_id"]) not in before.tolist()
    path = folders[1] / "result.json"
    assert read_json(path, "result")["config"]["epochs"] == Bpr.settings.epochs
    run_baselines(dataset, tmp_path, rules, [Quick])
    assert read_json(path, "result")["config"]["epochs"] == 2


def test_without_the_library_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InstallationError, match=r"pip install 'peso-rec\[bench\]'"):
        require_library()
    with pytest.raises(InstallationError, match="implicit"):
        ItemKnn(tiny_dataset(), 0)
