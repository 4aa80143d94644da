"""SASRec: its loss, its rows, what it learns, and what it may not see."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peso.data.dataset import Dataset
from peso.data.examples import targets_of_block
from peso.memory.order import share_to_shuffle
from peso.rivals.network import SasRecNetwork
from peso.rivals.rows import histories, training_rows
from peso.rivals.sasrec import SasRec, SasRecRetrained, SasRecSettings, SasRecUpdated
from peso.rivals.scoring import best_items, mean_loss
from peso.rivals.softmax_loss import softmax_loss
from peso.rivals.training import Stage, train
from worlds import tiny_dataset

SMALL = SasRecSettings(hidden_size=8, epochs=2, update_epochs=2)


class SmallUpdated(SasRecUpdated):
    settings = SMALL


class SmallRetrained(SasRecRetrained):
    settings = SMALL


BOTH = [SmallUpdated, SmallRetrained]


def cycling(num_users: int = 60, num_items: int = 12) -> Dataset:
    """Item i is always followed by item i + 1 in block 0, and by item i + 2 in block 1."""
    users, items, blocks = [], [], []
    for user in range(num_users):
        length = 4 + user % 6
        first = [(user + step) % num_items for step in range(length)]
        second = [(first[-1] + 2 * step) % num_items for step in range(1, length + 1)]
        users += [user] * 2 * length
        items += first + second
        blocks += [0] * length + [1] * length
    names = [str(number) for number in range(num_items)]
    user_names = [f"user {number}" for number in range(num_users)]
    return Dataset(user_names, names, names, np.array(users), np.array(items), np.array(blocks), 2)


def test_loss_by_hand() -> None:
    # Scores 0 and log 3: probabilities 1/4 and 3/4.
    states, table = torch.tensor([[1.0]]), torch.tensor([[0.0], [math.log(3.0)]])
    assert softmax_loss(states, table, torch.tensor([0])).item() == pytest.approx(math.log(4.0))
    assert softmax_loss(states, table, torch.tensor([1])).item() == pytest.approx(math.log(4.0 / 3.0))


@given(num_targets=st.sampled_from([1, 5, 300]), seed=st.integers(0, 50), scale=st.sampled_from([0.1, 10.0]))
@settings(max_examples=15, deadline=None)
def test_loss_and_gradient_are_those_of_cross_entropy(num_targets: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    states = (scale * torch.randn(num_targets, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    table = (scale * torch.randn(7, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 7, (num_targets,), generator=generator)
    expected = torch.nn.functional.cross_entropy(states @ table.T, labels, reduction="sum")
    gradients = torch.autograd.grad(2 * expected, (states, table))
    actual = softmax_loss(states, table, labels)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(2 * actual, (states, table)), gradients)


def test_rows_by_hand() -> None:
    items = np.arange(10, 19)
    names = [str(number) for number in range(20)]
    blocks = np.array([0] * 7 + [0] * 2)
    dataset = Dataset(["a", "b"], names, names, np.array([0] * 7 + [1] * 2), items, blocks, 1)
    rows = training_rows(dataset, np.array([0, 1, 2, 5, 6, 8]), max_history=4)
    # The first event of a user has no history. Event 5 is the first that the first row cannot reach.
    assert rows.starts.tolist() == [0, 2, 7]
    assert rows.items.tolist() == [[10, 11, 0, 0], [12, 13, 14, 15], [17, 0, 0, 0]]
    assert rows.labels.tolist() == [[11, 12, -1, -1], [-1, -1, 15, 16], [18, -1, -1, -1]]
    last, lengths = histories(dataset, np.array([0, 5, 8]), max_history=4)
    assert last.tolist() == [[0, 0, 0, 0], [11, 12, 13, 14], [17, 0, 0, 0]]
    assert lengths.tolist() == [0, 4, 1]


@given(seed=st.integers(0, 200), max_history=st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_rows_hold_every_target_once_behind_enough_history(seed: int, max_history: int) -> None:
    dataset = tiny_dataset(6, 30, 3, seed=seed)
    generator = np.random.default_rng(seed)
    targets = np.flatnonzero(generator.random(dataset.num_events) < 0.5)
    rows = training_rows(dataset, targets, max_history)
    row, place = np.nonzero(rows.labels >= 0)
    found = rows.starts[row] + place + 1
    first = dataset.user_offsets[dataset.event_user[targets]]
    assert sorted(found.tolist()) == targets[targets > first].tolist()
    assert rows.labels[row, place].tolist() == dataset.event_item[found].tolist()
    for r, p, target in zip(row, place, found, strict=True):
        start = dataset.user_offsets[dataset.event_user[target]]
        assert p + 1 >= min(max_history // 2, target - start)
        assert rows.items[r, : p + 1].tolist() == dataset.event_item[target - p - 1 : target].tolist()
        assert target - p - 1 >= start


def test_a_state_does_not_depend_on_later_items() -> None:
    torch.manual_seed(0)
    network = SasRecNetwork(20, 6, 8, 2, 2, 0.0).eval()
    items = torch.randint(0, 20, (3, 6))
    changed = items.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 20
    torch.testing.assert_close(network(items)[:, :4], network(changed)[:, :4])
    torch.testing.assert_close(network(items)[:, :4], network(items[:, :4]))
    assert not torch.allclose(network(items)[:, 4:], network(changed)[:, 4:])


def test_blocks_start_with_weights_of_their_own() -> None:
    first, second = SasRecNetwork(20, 6, 8, 2, 2, 0.0).blocks.layers
    matrices = [name for name, values in first.named_parameters() if values.dim() == 2]
    assert len(matrices) == 4
    assert all(not torch.equal(first.get_parameter(name), second.get_parameter(name)) for name in matrices)


def test_scores_are_ranked_and_normalised_over_candidates() -> None:
    dataset = tiny_dataset(30, 40, 3)
    torch.manual_seed(0)
    network = SasRecNetwork(40, 6, 8, 1, 2, 0.5)
    targets = targets_of_block(dataset, 1, "test")
    candidates = np.arange(0, 40, 2)
    best = best_items(network, dataset, targets, candidates, 50)
    items, lengths = histories(dataset, targets, 6)
    states = network.eval()(torch.from_numpy(items))
    scores = torch.stack([states[row, length - 1] for row, length in enumerate(lengths)]) @ network.items.weight.T
    expected = candidates[scores[:, ::2].argsort(dim=1, descending=True).numpy()]
    assert best.tolist() == expected.tolist()
    wanted = dataset.event_item[targets]
    kept = wanted % 2 == 0
    log_p = torch.log_softmax(scores[:, ::2].double(), 1)[kept, torch.from_numpy(wanted[kept] // 2)]
    assert mean_loss(network, dataset, targets, candidates) == pytest.approx(-float(log_p.detach().mean()), rel=1e-5)
    assert np.isnan(mean_loss(network, dataset, targets[:0], candidates))


def test_planted_succession_is_learned_and_an_update_follows_it() -> None:
    class Quick(SasRecUpdated):
        settings = SasRecSettings(
            hidden_size=16, dropout=0.0, learning_rate=1e-2, epochs=30, update_learning_rate=1e-2, update_epochs=30
        )

    dataset, everything = cycling(), np.arange(12)
    before = Quick(dataset, 0)
    tested, later = targets_of_block(dataset, 0, "test"), targets_of_block(dataset, 1, "test")
    first_lists = before.lists(tested, 1, everything)
    assert (first_lists[:, 0] == dataset.event_item[tested]).mean() > 0.9
    assert (before.lists(later, 1, everything)[:, 0] == dataset.event_item[later]).mean() < 0.5
    after = Quick(dataset, 1, before)
    assert (after.lists(later, 1, everything)[:, 0] == dataset.event_item[later]).mean() > 0.9
    assert before.lists(tested, 1, everything).tolist() == first_lists.tolist()  # the update left it alone


def test_as_many_users_are_shuffled_as_counts_bear() -> None:
    class Quick(SasRecUpdated):
        settings = SasRecSettings(hidden_size=16, dropout=0.0, learning_rate=1e-2, epochs=30)

    class Shuffled(Quick):
        settings = replace(Quick.settings, shuffled_share=1.0)

    dataset = cycling()
    tested = targets_of_block(dataset, 0, "test")
    first, shuffled = Quick(dataset, 0), Shuffled(dataset, 0)
    assert first.shuffled_share == share_to_shuffle(dataset) < 0.5
    hits = [
        (model.lists(tested, 1, np.arange(12))[:, 0] == dataset.event_item[tested]).mean()
        for model in (first, shuffled)
    ]
    assert hits[0] > 0.9 > 0.6 > hits[1]  # who never sees the order cannot learn it
    assert Quick(dataset, 1, first).shuffled_share == first.shuffled_share


def test_the_epoch_of_the_lowest_validation_loss_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    dataset = tiny_dataset(30, 40, 3)
    torch.manual_seed(0)
    network = SasRecNetwork(40, 20, 8, 1, 2, 0.0)
    valid, candidates = targets_of_block(dataset, 0, "valid"), np.arange(40)
    with caplog.at_level(logging.INFO, logger="peso"):
        train(network, dataset, targets_of_block(dataset, 0, "train"), valid, candidates, Stage("s", 0.05, 8, 0))
    losses = [float(record.args[2]) for record in caplog.records if isinstance(record.args, tuple)]  # type: ignore[arg-type]
    assert len(losses) == 8
    assert min(losses) < losses[-1]  # random data are only memorised
    assert mean_loss(network, dataset, valid, candidates) == pytest.approx(min(losses), rel=1e-6)


def test_targets_without_a_history_teach_nothing() -> None:
    dataset = tiny_dataset(30, 40, 3)
    network = SasRecNetwork(40, 20, 8, 1, 2, 0.0)
    before = {name: values.clone() for name, values in network.state_dict().items()}
    firsts = dataset.user_offsets[:-1]
    train(network, dataset, firsts, firsts, np.arange(40), Stage("s", 0.05, 2, 0))
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())


def fit(kind: type[SasRec], dataset: Dataset, last_block: int) -> SasRec:
    fitted = None
    for block in range(last_block + 1):
        fitted = kind(dataset, block, fitted)
    assert fitted is not None
    return fitted


@pytest.mark.parametrize("kind", BOTH)
def test_the_seed_decides_the_lists(kind: type[SasRec]) -> None:
    dataset = tiny_dataset(30, 40, 3)
    targets = targets_of_block(dataset, 1, "test")

    class Other(kind):  # type: ignore[misc, valid-type]
        settings = SasRecSettings(hidden_size=8, epochs=2, update_epochs=2, seed=1)

    state = torch.get_rng_state()
    first, second, other = (fit(k, dataset, 1).lists(targets, 40, np.arange(40)) for k in (kind, kind, Other))
    assert first.tolist() == second.tolist()
    assert first.tolist() != other.tolist()
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", BOTH)
def test_validation_targets_choose_an_epoch_but_are_not_learned(kind: type[SasRec]) -> None:
    class OneEpoch(kind):  # type: ignore[misc, valid-type]
        settings = SasRecSettings(hidden_size=8, epochs=1, update_epochs=1)

    dataset = tiny_dataset(30, 40, 2)
    items = dataset.event_item.copy()
    hidden = np.concatenate([targets_of_block(dataset, 1, role) for role in ("valid", "test")])
    items[hidden] = (items[hidden] + 7) % 40
    changed = Dataset(
        dataset.user_ids, dataset.item_ids, dataset.titles, dataset.event_user, items, dataset.event_block, 2
    )
    targets = targets_of_block(dataset, 1, "train")
    lists = [fit(OneEpoch, data, 1).lists(targets, 10, np.arange(40)).tolist() for data in (dataset, changed)]
    assert lists[0] == lists[1]


@pytest.mark.parametrize("kind", BOTH)
def test_later_events_change_nothing(kind: type[SasRec]) -> None:
    dataset = tiny_dataset(30, 40, 3)
    targets = targets_of_block(dataset, 1, "test")
    items = dataset.event_item.copy()
    hidden = np.r_[targets, np.flatnonzero(dataset.event_block > 1)]
    items[hidden] = (items[hidden] + 7) % 40
    changed = Dataset(
        dataset.user_ids, dataset.item_ids, dataset.titles, dataset.event_user, items, dataset.event_block, 3
    )
    lists = [fit(kind, data, 1).lists(targets, 10, np.arange(40)).tolist() for data in (dataset, changed)]
    assert lists[0] == lists[1]


@pytest.mark.parametrize("kind", BOTH)
def test_lists_name_allowed_items_once_and_popular_ones_without_a_history(kind: type[SasRec]) -> None:
    dataset = tiny_dataset(30, 40, 3)
    fitted = fit(kind, dataset, 0)
    allowed = np.arange(0, 40, 3)
    events = np.r_[dataset.user_offsets[:3], targets_of_block(dataset, 0, "test")[:5]]
    lists = fitted.lists(events, 8, allowed)
    popular = fitted.popular(8, allowed)[:8].tolist()
    assert lists[:3].tolist() == [popular] * 3
    for row in lists.tolist():
        assert set(row) <= set(allowed.tolist())
        assert len(set(row)) == 8
    assert (fitted.lists(events, 30, allowed)[:, len(allowed) :] == -1).all()
