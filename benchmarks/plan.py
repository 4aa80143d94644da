"""What `peso plan` says of this CPU against what an update takes on it: tokens per second, in turns."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import Outcome, Target, compare, run_benchmark, seconds_of, turns_of
from benchmarks.world import build_adapted_model, load_world
from peso.config import BackboneConfig
from peso.data.examples import targets_of_block
from peso.lm.backbone import build_backbone
from peso.methods.registry import build_method
from peso.training.base import adapter_parts, validation_rows
from peso.training.block_view import RunView
from peso.training.materials import Materials
from peso.training.planning import plan_run
from peso.training.trainer import train_stage
from peso.training.update import update_stage

MAX_ERROR = 0.15
BLOCK = 1
LANGUAGE_MODEL: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 4,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
NUM_TARGETS = {"embedded": 6000, "language_model": 1500}
QUICK_SHARE = 4


def main() -> None:
    """Command line."""
    run_benchmark("plan", __doc__, measure)


def measure(quick: bool) -> Outcome:
    """Plans and updates, of the embedded backbone and of one with twelve layers read from a folder."""
    targets: dict[str, Target] = {}
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        worlds = {
            "embedded": load_world(),
            "language_model": load_world({"backbone": {"source": _written(folder)}, "template": "instruct"}),
        }
        for name, materials in worlds.items():
            num_targets = NUM_TARGETS[name] // (QUICK_SHARE if quick else 1)
            sides = {"planned": _planned(materials), "measured": _measured(materials, num_targets)}
            comparison = compare(sides, turns_of(quick))
            ratio = comparison.ratio("planned", "measured")
            targets[f"{name}_error"] = Target(abs(ratio - 1), MAX_ERROR, "at_most")
            details[name] = {"planned_over_measured": ratio, "tokens_per_second": comparison.as_json()}
    return Outcome(targets, details)


def _planned(materials: Materials) -> Callable[[], float]:
    return lambda: plan_run(materials, gpu_memory_gib=None, teraflops=1.0).tokens_per_second


def _measured(materials: Materials, num_targets: int) -> Callable[[], float]:
    """Tokens per second of one epoch of a PESO update as it is run, its optimizer, pull and validation included."""
    world = build_adapted_model(materials)
    config, reader = materials.config, world.reader
    parts = adapter_parts(world.peft)
    chosen = targets_of_block(materials.dataset, BLOCK, "train")[:num_targets]
    valid = validation_rows(materials, BLOCK)
    view = RunView(materials, reader, world.peft, Path(), BLOCK)
    stage = replace(
        update_stage(materials, reader, parts, build_method(config), view, chosen, f"block_{BLOCK}"),
        valid_rows=valid.take(np.arange(min(len(valid), len(chosen) // 8))),
        epochs=1,
    )
    num_tokens = int(reader.builder.row_lengths(stage.train_rows).sum())

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "state"
            return num_tokens / seconds_of(lambda: train_stage(reader.model, reader.likelihood, stage, file))

    return once


def _written(folder: str) -> str:
    """A random Llama in a folder, as `transformers` writes it, with the words that the template needs."""
    _, tokenizer = build_backbone(BackboneConfig(), load_world().semantic_ids.level_sizes, 0)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**LANGUAGE_MODEL, vocab_size=len(tokenizer)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
