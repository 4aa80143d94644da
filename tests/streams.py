"""Whole runs on a small simulated world, in seconds."""

from pathlib import Path
from typing import Any

from peso.config import RunConfig, make_config
from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import save_dataset
from peso.semantic_ids.catalogue import build_semantic_ids

SMALL: dict[str, Any] = {
    "backbone": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "epochs": 2},
    "adapter": {"r": 2, "lora_alpha": 4},
    "training": {"epochs": 2, "base_batch_targets": 64, "rate_factors": [1.0]},
    "decoding": {"beam_width": 10},
}
QUICK: dict[str, Any] = {
    "training": {"epochs": 1, "rate_factors": [0.25, 0.5, 1.0, 2.0]}, "evaluation": {"next_block": "off"},
    "memory": {"use": False},  # counts beside the model learn nothing from a method
}  # fmt: skip
"""For what methods do to adapters: a pass a block at a rate that suits it, and no lists of the next block."""


def config(**overrides: Any) -> RunConfig:
    """Sections given replace the small ones, but for `training`, of which only what is given does."""
    training = SMALL["training"] | overrides.pop("training", {})
    return make_config(None, SMALL | overrides | {"training": training})


def fill(workspace: Path, num_users: int = 60, seed: int = 0, num_blocks: int = 3) -> Path:
    world = simulate(SimulationSettings(num_users=num_users, num_items=150, num_blocks=num_blocks, seed=seed))
    save_dataset(world.dataset, workspace / "data")
    ids = build_semantic_ids(world.dataset, world.source_codes, world.level_sizes)
    ids.save(workspace / "data" / "semantic_ids", world.dataset.item_ids)
    return workspace
