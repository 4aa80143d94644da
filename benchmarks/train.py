"""Training: targets per second against Hugging Face's Trainer, and the share of the machine's floor that is reached."""

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness import PAIRS, Outcome, Target, compare, run_benchmark, seconds_of
from benchmarks.rivals import Examples, stock_model, trainer_seconds_per_target
from benchmarks.world import build_adapted_model, load_world
from peso.config import RunConfig
from peso.data.examples import targets_of_block
from peso.lm.batching import batches_of_similar_length, cut_by_length
from peso.lm.rows import one_target_per_row
from peso.training.base import adapter_parts, training_rows
from peso.training.materials import Materials, Reader
from peso.training.optimisation import FlatOptimizer
from peso.training.stage import Stage, tokens_of_a_pass
from peso.training.steps import training_step
from peso.types import TemplateName

WANTED: dict[TemplateName, float] = {"sid": 8.0, "instruct": 5.0}
WANTED_SHARE = 0.6
NUM_USERS, RIVAL_TARGETS = 1200, 1536
QUICK_SHARE = 5
PRODUCTS = tuple(f"aten::{name}" for name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"))
RIVAL_BATCHES = (16, 32, 64, 128, 256)


def main() -> None:
    """Command line."""
    run_benchmark("train", __doc__, measure)


def measure(quick: bool) -> Outcome:
    """Both templates, then the floor."""
    targets: dict[str, Target] = {}
    details: dict[str, Any] = {"data": load_world().dataset.source}
    for template, wanted in WANTED.items():
        facts = _against_trainer(template, quick)
        targets[f"{template}_times_trainer"] = Target(facts["ratio"], wanted, unit="x")
        details[template] = facts
    details["floor"] = _floor(quick)
    targets["share_of_floor"] = Target(details["floor"]["share"], WANTED_SHARE)
    targets["share_of_floor_of_plain_layers"] = Target(details["floor"]["share_of_plain_layers"], WANTED_SHARE)
    return Outcome(targets, details)


class OurTraining:
    """Steps of the default trainer over the targets of some users of block 0."""

    def __init__(self, template: TemplateName, num_users: int) -> None:
        """Builds model, rows and optimizer.

        Args:
            template: how histories are written.
            num_users: how many users, drawn with a fixed seed.
        """
        self.materials: Materials = load_world({"template": template})
        world = build_adapted_model(self.materials)
        self.reader: Reader = world.reader
        self.targets = _targets_of_users(self.materials, num_users)
        config: RunConfig = self.materials.config
        rows = training_rows(self.materials, self.targets)
        parts, batch_targets = adapter_parts(world.peft), config.training.base_batch_targets
        self.stage = Stage(
            name="benchmark", key="", block=0, parts=parts, builder=self.reader.builder, train_rows=rows,
            valid_rows=rows.take(np.arange(0)), epochs=1, learning_rates=dict.fromkeys(parts, 1e-4),
            batch_targets=batch_targets, weight_decay=0.01, training=config.training, seed=0,
            tokens_of_a_pass=tokens_of_a_pass(self.reader.model, config.training),
        )  # fmt: skip
        lengths = self.reader.builder.row_lengths(rows)
        self.batches = batches_of_similar_length(lengths, rows.num_targets, batch_targets, seed=0)
        self._optimizer = FlatOptimizer(parts, self.stage.learning_rates, 0.01, num_steps=10_000, warmup_fraction=0.01)

    def epoch(self) -> None:
        """One pass over all targets."""
        self.reader.model.train()
        for chosen in self.batches:
            training_step(self.reader.model, self.reader.likelihood, self.stage, self._optimizer, chosen)


def _targets_of_users(materials: Materials, num_users: int) -> np.ndarray:
    dataset = materials.dataset
    targets = targets_of_block(dataset, 0, "train")
    users = np.unique(dataset.event_user[targets])
    chosen = np.random.default_rng(0).permutation(users)[:num_users]
    return targets[np.isin(dataset.event_user[targets], chosen)]


def _against_trainer(template: TemplateName, quick: bool) -> dict[str, Any]:
    ours = OurTraining(template, NUM_USERS // QUICK_SHARE if quick else NUM_USERS)
    materials, builder = ours.materials, ours.reader.builder
    sample = np.random.default_rng(1).permutation(ours.targets)[
        : RIVAL_TARGETS // QUICK_SHARE if quick else RIVAL_TARGETS
    ]
    examples = Examples(builder, one_target_per_row(materials.dataset, sample, materials.config.max_history))
    model = stock_model(materials, builder.vocabulary.all_token_ids)
    with tempfile.TemporaryDirectory() as folder:
        rival = partial(trainer_seconds_per_target, model, examples, folder=folder)
        rival(batch=RIVAL_BATCHES[0])  # whatever a first time costs is paid before batches are compared
        tried = {batch: rival(batch=batch) for batch in RIVAL_BATCHES if 2 * batch <= len(examples)}
        best = min(tried, key=lambda batch: tried[batch])
        sides: dict[str, Callable[[], float]] = {
            "peso": lambda: seconds_of(ours.epoch) / len(ours.targets),
            "trainer": lambda: rival(batch=best),
        }
        comparison = compare(sides, PAIRS)
    return {
        "ratio": comparison.ratio("trainer", "peso"),
        "targets_per_second": {side: 1 / comparison.median(side) for side in sides},
        "trainer_batch": best,
        "trainer_targets_per_second_by_batch": {str(batch): 1 / seconds for batch, seconds in tried.items()},
        "tokens_per_target": {
            "peso": float(builder.row_lengths(ours.stage.train_rows).sum() / len(ours.targets)),
            "trainer": float(np.mean([len(examples[number]["input_ids"]) for number in range(len(examples))])),
        },
    }


def _floor(quick: bool) -> dict[str, Any]:
    """The least time for the products that the adapter's gradient needs, at the rate the machine reaches on them."""
    ours = OurTraining("sid", NUM_USERS // QUICK_SHARE if quick else NUM_USERS)
    lengths = ours.reader.builder.row_lengths(ours.stage.train_rows)
    num_tokens = int(lengths.sum()) // len(ours.batches)
    shapes = _linear_shapes(ours.reader)
    flops, of_plain = _flops(ours, lengths), _flops_of_plain(ours, lengths)
    operands = [
        (torch.randn(num_tokens, wide), torch.randn(long, wide), torch.randn(num_tokens, long)) for wide, long in shapes
    ]

    def products() -> None:
        for states, weight, gradient in operands:
            torch.mm(states, weight.T)
            torch.mm(gradient, weight)

    def repeated() -> None:
        for _ in ours.batches:
            products()

    per_call = sum(4 * num_tokens * wide * long for wide, long in shapes)
    square = torch.randn(1536, 1536)
    comparison = compare(
        {
            "epoch": lambda: seconds_of(ours.epoch),
            "products": lambda: seconds_of(repeated),
            "square": lambda: seconds_of(lambda: torch.mm(square, square)),
        },
        PAIRS,
    )
    of_batches = [lengths[chosen] for chosen in ours.batches]
    of_passes = [batch[cut] for batch in of_batches for cut in cut_by_length(batch, ours.stage.tokens_of_a_pass)]
    rate = per_call * len(ours.batches) / comparison.median("products")
    return {
        "share": flops / per_call / len(ours.batches) * comparison.ratio("products", "epoch"),
        "share_of_plain_layers": of_plain / per_call / len(ours.batches) * comparison.ratio("products", "epoch"),
        "share_of_time_in_products": _share_in_products(ours),
        "share_of_padding": 1 - int(lengths.sum()) / sum(len(one) * int(one.max()) for one in of_passes),
        "gflop_per_epoch": flops / 1e9,
        "gflop_per_epoch_of_plain_layers": of_plain / 1e9,
        "gflop_per_second_on_these_shapes": rate / 1e9,
        "gflop_per_second_on_a_square": 2 * 1536**3 / comparison.median("square") / 1e9,
        "seconds": comparison.as_json(),
    }


def _share_in_products(ours: OurTraining) -> float:
    """Matrix products of all kinds in an epoch's operations, by their own time in torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU]) as record:
        ours.epoch()
    own = {event.key: event.self_cpu_time_total for event in record.key_averages() if event.key.startswith("aten::")}
    return sum(own.get(name, 0.0) for name in PRODUCTS) / sum(own.values())


def _linear_shapes(reader: Reader) -> list[tuple[int, int]]:
    """Input and output features of the layers' products."""
    config = reader.model.config
    width, inner = config.hidden_size, config.intermediate_size
    layer = [(width, width)] * 4 + [(width, inner)] * 2 + [(inner, width)]
    return layer * config.num_hidden_layers


def _products(ours: OurTraining, lengths: np.ndarray) -> list[tuple[int, int, int]]:
    """Rows, input and output features of every product, for as few rows as it can be needed for.

    The first layer's query, key and value are needed for each distinct token of a batch; of the last layer, keys and
    values for every token and the rest for answers.
    """
    config = ours.reader.model.config
    width, inner, num_layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    rows, builder = ours.stage.train_rows, ours.reader.builder
    num_distinct = sum(len(builder.batch(rows.take(chosen)).input_ids.unique()) for chosen in ours.batches)
    num_tokens, num_answers = int(lengths.sum()), len(ours.targets) * builder.vocabulary.num_levels
    products = []
    for number in range(num_layers):
        num_read = num_distinct if number == 0 else num_tokens
        num_asked = num_answers if number == num_layers - 1 else num_tokens
        products += [(min(num_read, num_asked), width, width)] + [(num_read, width, width)] * 2
        products += [(num_asked, width, width)] + [(num_asked, width, inner)] * 2 + [(num_asked, inner, width)]
    return products


def _flops(ours: OurTraining, lengths: np.ndarray) -> int:
    """What an epoch's gradient needs.

    Each product once forward and once back to the states, the gradients of A and B from the matrix's or by thin
    products, attention and the head.
    """
    rank = ours.materials.config.adapter.r
    layers = sum(
        rows * (4 * wide * long + min(2 * wide * long, 4 * rank * (wide + long)))
        for rows, wide, long in _products(ours, lengths)
    )
    return layers + _other_flops(ours, lengths)


def _flops_of_plain(ours: OurTraining, lengths: np.ndarray) -> int:
    """What the layers do as they stand: every product for every token, the adapter's beside the frozen ones."""
    rank, num_tokens = ours.materials.config.adapter.r, int(lengths.sum())
    layers = sum(4 * wide * long + 8 * rank * (wide + long) for wide, long in _linear_shapes(ours.reader))
    return num_tokens * layers + _other_flops(ours, lengths)


def _other_flops(ours: OurTraining, lengths: np.ndarray) -> int:
    """Attention over what is seen, forward once and backward two and a half times, and the head."""
    config, vocabulary = ours.reader.model.config, ours.reader.builder.vocabulary
    pairs = int((lengths * (lengths + 1) // 2).sum())
    attention = 14 * pairs * config.hidden_size * config.num_hidden_layers
    codes = sum(map(len, vocabulary.level_token_ids))
    return attention + 6 * len(ours.targets) * config.hidden_size * codes


if __name__ == "__main__":
    main()
