"""How much is shuffled follows from how much order says: much where sets of items tell, little where successors do."""

import numpy as np
import pytest

from peso.config import make_config
from peso.data.dataset import Dataset
from peso.memory.order import SHARES, share_to_shuffle
from peso.semantic_ids.catalogue import SemanticIds
from peso.training.materials import Materials
from worlds import LEVEL_SIZES, tiny_codes, tiny_dataset

NUM_USERS, LENGTH, NUM_ITEMS, NUM_KINDS = 400, 8, 600, 60


def dataset_of(items: np.ndarray) -> Dataset:
    """A block in which user u took items[u], in this order."""
    num_users, length = items.shape
    users = np.repeat(np.arange(num_users), length)
    names = [[f"{kind}{number}" for number in range(size)] for kind, size in (("u", num_users), ("i", NUM_ITEMS))]
    blocks = np.zeros_like(users)
    return Dataset(names[0], names[1], [""] * NUM_ITEMS, users, items.reshape(-1).astype(np.int64), blocks, 1)


def walks() -> Dataset:
    """Who took item i takes i + 1 next: order says everything."""
    starts = np.random.default_rng(0).integers(0, NUM_ITEMS, NUM_USERS)
    return dataset_of((starts[:, None] + np.arange(LENGTH)) % NUM_ITEMS)


def tastes() -> Dataset:
    """Each user takes items of one of many kinds, in any order: order says nothing, and pairs are seen seldom."""
    random = np.random.default_rng(0)
    of_a_kind = NUM_ITEMS // NUM_KINDS
    kinds = random.integers(0, NUM_KINDS, NUM_USERS)
    return dataset_of(np.stack([kind * of_a_kind + random.permutation(of_a_kind)[:LENGTH] for kind in kinds]))


def test_where_order_says_everything_everyone_is_read_in_order() -> None:
    assert share_to_shuffle(walks()) == 0.0


def test_where_order_says_nothing_many_are_shuffled() -> None:
    assert share_to_shuffle(tastes()) >= 0.5


@pytest.mark.parametrize("make", [walks, tastes])
def test_only_block_0_is_asked(make: type) -> None:
    """What happens later, to the same users or to others, changes nothing."""
    whole = make()
    late = np.repeat(np.arange(NUM_USERS), 4)
    random = np.random.default_rng(1)
    users = np.r_[whole.event_user, late]
    order = np.argsort(users, kind="stable")
    items = np.r_[whole.event_item, random.integers(0, NUM_ITEMS, len(late))][order]
    blocks = np.r_[whole.event_block, np.ones_like(late)][order]
    grown = Dataset(whole.user_ids, whole.item_ids, whole.titles, users[order], items, blocks, 2)
    assert share_to_shuffle(grown) == share_to_shuffle(whole)


def test_without_validation_targets_nothing_is_shuffled() -> None:
    assert share_to_shuffle(dataset_of(np.random.default_rng(0).integers(0, NUM_ITEMS, (NUM_USERS, 2)))) == 0.0


def test_a_configured_share_is_not_chosen() -> None:
    def share(wanted: float | str) -> float:
        config = make_config(None, {"training": {"shuffled_share": wanted}})
        codes = tiny_codes()
        return Materials(tiny_dataset(), SemanticIds(codes, codes, LEVEL_SIZES), config).shuffled_share

    assert share(0.37) == 0.37
    assert share("auto") in SHARES
