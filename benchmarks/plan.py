"""What `peso plan` says of a block on this CPU against what its update takes on it: seconds, in turns."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import PAIRS, Outcome, Target, compare, run_benchmark, seconds_of
from benchmarks.world import build_adapted_model, load_world
from peso.config import BackboneConfig
from peso.data.examples import targets_of_block
from peso.lm.backbone import build_backbone
from peso.methods.registry import build_method
from peso.training.base import adapter_parts
from peso.training.block_view import RunView
from peso.training.materials import Materials
from peso.training.planning import plan_run
from peso.training.trainer import train_stage
from peso.training.update_stage import update_stage

MAX_ERROR = 0.15
BLOCK = 1
DEEP: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 12, "num_attention_heads": 4,
    "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
QUICK: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4}
QUICK_TURNS = 2


def main() -> None:
    """Command line."""
    run_benchmark("plan", __doc__, measure)


def measure(quick: bool) -> Outcome:
    """Plans and updates, of the embedded backbone and of a deep one that is read from a folder."""
    targets: dict[str, Target] = {}
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        read = {"backbone": {"source": _written(folder, quick)}, "template": "instruct"}
        for name, settings in {"embedded": {}, "deep": read}.items():
            materials = load_world(settings | {"training": {"epochs": 1, "rate_factors": [1.0]}})
            comparison = compare(
                {"planned": _planned(materials), "measured": _measured(materials)}, QUICK_TURNS if quick else PAIRS
            )
            ratio = comparison.ratio("planned", "measured")
            targets[f"{name}_error"] = Target(abs(ratio - 1), MAX_ERROR, "at_most")
            details["data"] = materials.dataset.source
            details[name] = {"planned_over_measured": ratio, "seconds_of_a_block": comparison.as_json()}
    return Outcome(targets, details)


def _planned(materials: Materials) -> Callable[[], float]:
    return lambda: plan_run(materials, gpu_memory_gib=None, teraflops=1.0).blocks[BLOCK].hours * 3600


def _measured(materials: Materials) -> Callable[[], float]:
    """Seconds of a PESO update of one epoch as it is run, its optimizer, pull and validation included."""
    world = build_adapted_model(materials)
    config, reader = materials.config, world.reader
    chosen = targets_of_block(materials.dataset, BLOCK, "train")
    view = RunView(materials, reader, world.peft, Path(), BLOCK)
    parts = adapter_parts(world.peft)
    stage = update_stage(materials, reader, parts, build_method(config), view, chosen, f"block_{BLOCK}")

    def once() -> float:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "state"
            return seconds_of(lambda: train_stage(reader.model, reader.likelihood, stage, file))

    return once


def _written(folder: str, quick: bool) -> str:
    """A random Llama in a folder, as `transformers` writes it, with the words that the template needs."""
    _, tokenizer = build_backbone(BackboneConfig(), load_world().semantic_ids.level_sizes, 0)
    torch.manual_seed(0)
    shape = DEEP | (QUICK if quick else {})
    model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=len(tokenizer)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
