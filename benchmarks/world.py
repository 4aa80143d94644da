"""The data that benchmarks run on: the released Video Games stream, or a simulated one where it is absent."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from peso.config import make_config
from peso.data.simulate import SimulationSettings, simulate
from peso.data.sources.peso_release import read_peso_release
from peso.lm.adapters import attach_adapter
from peso.lm.backbone import build_backbone
from peso.lm.device import make_ready
from peso.semantic_ids.catalogue import build_semantic_ids
from peso.training.materials import Materials, Reader, build_reader

RELEASE = "peso-release/Video_Games_cl_0.6_0_5_3_0"


def load_world(overrides: dict[str, Any] | None = None) -> Materials:
    """The stream with a configuration.

    Args:
        overrides: what differs from the default configuration.
    """
    folder = Path(os.environ.get("PESO_SHARED_DATA", "../shared/data")) / RELEASE
    config = make_config(None, overrides)
    if folder.is_dir():
        imported = read_peso_release(folder)
        assert imported.source_codes is not None
        dataset, source_codes, level_sizes = imported.dataset, imported.source_codes, imported.level_sizes
    else:
        world = simulate(SimulationSettings(num_users=6000, num_items=4000))
        dataset, source_codes, level_sizes = world.dataset, world.source_codes, world.level_sizes
    return Materials(dataset, build_semantic_ids(dataset, source_codes, level_sizes), config)


@dataclass(frozen=True, eq=False)
class AdaptedModel:
    """An untrained backbone with an untrained adapter on it: speed does not depend on what the weights are.

    Attributes:
        peft: the adapter's view of the model.
        reader: how the backbone (with the adapter injected) reads and scores items.
    """

    peft: PeftModel
    reader: Reader


def build_adapted_model(materials: Materials) -> AdaptedModel:
    """Builds the configured backbone and attaches the configured adapter; equal materials give equal weights."""
    config = materials.config
    model, tokenizer = build_backbone(config.backbone, materials.semantic_ids.level_sizes, config.seed)
    model = make_ready(model)
    reader = build_reader(materials, model, tokenizer)
    token_ids = reader.builder.vocabulary.all_token_ids
    return AdaptedModel(attach_adapter(model, config.adapter, token_ids, config.seed), reader)
