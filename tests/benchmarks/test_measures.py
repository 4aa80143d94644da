"""Every benchmark of `make bench` in miniature: it runs to its end, and its figures are numbers of the right kind."""

import math
from types import ModuleType
from typing import Any

import pytest
from transformers import LlamaConfig

from benchmarks import decode, plan, proximal, train, trie, update
from benchmarks.harness import Outcome
from peso.config import make_config
from peso.data.simulate import SimulationSettings, simulate
from peso.semantic_ids.catalogue import build_semantic_ids
from peso.training.materials import Materials
from streams import SMALL

THIN = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SIZES: dict[ModuleType, dict[str, Any]] = {
    train: {"PAIRS": 2, "NUM_USERS": 100, "RIVAL_TARGETS": 160, "RIVAL_BATCHES": (4, 8)},
    decode: {"PAIRS": 2, "RIVAL_BATCHES": (8,), "NUM_CHECKED": 4},
    trie: {"TURNS": 1, "QUICK_SIZES": (100, 1000), "NUM_USERS": 4},
    proximal: {"PAIRS": 1, "LlamaConfig": lambda **shape: LlamaConfig(**shape | THIN | {"num_key_value_heads": 32})},
    update: {"PAIRS": 2, "QUICK_SHARE": 1},
    plan: {"QUICK_TURNS": 1, "QUICK": THIN},
}
TARGETS: dict[ModuleType, set[str]] = {
    train: {"sid_times_trainer", "instruct_times_trainer", "share_of_floor", "share_of_floor_of_plain_layers"},
    decode: {"times_generate_alone", "times_generate_alone_merged", "times_generate_batched"},
    trie: {"decode_growth_1e+02_to_1e+03", "bytes_per_item", "overhead", "build_seconds_1e+03"},
    proximal: {
        f"{backbone}_{form}_added_percent"
        for backbone in ("llama_1b_shape", "embedded_backbone")
        for form in ("pull", "term")
    },
    update: {"retraining_over_update", "spread_of_cost_per_target", "memory_microseconds_per_event"},
    plan: {"embedded_error", "deep_error"},
}


def small_world(overrides: dict[str, Any] | None = None) -> Materials:
    """As `benchmarks.world.load_world`, of few users and with a small backbone unless another is named."""
    world = simulate(SimulationSettings(num_users=80, num_items=150, num_blocks=3))
    ids = build_semantic_ids(world.dataset, world.source_codes, world.level_sizes)
    return Materials(world.dataset, ids, make_config(None, {"backbone": SMALL["backbone"]} | (overrides or {})))


@pytest.fixture(scope="module", params=SIZES, ids=lambda module: module.__name__.split(".")[-1])
def measured(request: pytest.FixtureRequest) -> tuple[ModuleType, Outcome]:
    benchmark: ModuleType = request.param
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SIZES[benchmark].items():
            patch.setattr(benchmark, name, value)
        if hasattr(benchmark, "load_world"):
            patch.setattr(benchmark, "load_world", small_world)
        return benchmark, benchmark.measure(True)


def test_every_target_is_a_number(measured: tuple[ModuleType, Outcome]) -> None:
    benchmark, outcome = measured
    assert outcome.targets.keys() == TARGETS[benchmark]
    assert all(math.isfinite(target.value) for target in outcome.targets.values())


def test_ratios_and_shares_are_possible(measured: tuple[ModuleType, Outcome]) -> None:
    benchmark, outcome = measured
    ratios = [target.value for target in outcome.targets.values() if target.unit == "x"]
    assert all(ratio > 0 for ratio in ratios)
    if benchmark is train:
        floor = outcome.details["floor"]
        assert 0 < floor["share_of_time_in_products"] < 1
        assert 0 <= floor["share_of_padding"] < 1
    if benchmark is trie:
        assert all(
            facts["bytes_per_item_in_memory"] > facts["bytes_per_item"]
            for size, facts in outcome.details.items()
            if size != "decode"
        )
    if benchmark is not trie:
        assert outcome.details["data"] == small_world().dataset.source
