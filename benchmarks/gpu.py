"""On a GPU: training and decoding at the shape of Llama-3.2-1B in bfloat16, and equality with the CPU on a small model.

Where no GPU is at hand, nothing is measured and the result says so.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.agreement import agreement
from benchmarks.constraint import compare_with_decoding, overhead_of
from benchmarks.harness import Outcome, Target, run_benchmark, seconds_of
from benchmarks.world import load_world
from peso.config import AdapterConfig, DecodingConfig, TrainingConfig
from peso.data.examples import catalogue_items, targets_of_block
from peso.decoding.recommend import Recommender
from peso.decoding.trie import build_trie
from peso.lm.adapters import attach_adapter
from peso.lm.backbone import build_backbone
from peso.lm.batching import batches_of_similar_length
from peso.lm.device import make_ready
from peso.training.base import adapter_parts, training_rows
from peso.training.materials import Materials, Reader, build_reader
from peso.training.optimisation import FlatOptimizer
from peso.training.stage import Stage
from peso.training.steps import training_step

LLAMA_1B = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 129_280, "tie_word_embeddings": True,
}  # fmt: skip
SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 2048,
}  # fmt: skip
LINE_TOKENS, TARGETS_PER_STEP = 4096, 1024
BATCH_USERS, BEAM_WIDTH = (64, 256), 10
TURNS = 7
PEAK_BFLOAT16_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}


@dataclass(frozen=True, eq=False)
class Engine:
    """A backbone of some shape with an adapter, and the data it reads."""

    materials: Materials
    reader: Reader
    peft: PeftModel


def main() -> None:
    """Command line."""
    run_benchmark("gpu", __doc__, measure, on_gpu=True)


def measure(quick: bool) -> Outcome:
    """Everything, or a plain word that there is no GPU."""
    if not torch.cuda.is_available():
        return Outcome({}, {"was_run": False, "reason": "no CUDA device on this machine; nothing was measured"})
    steps = 5 if quick else 20
    engine = build_engine({**LLAMA_1B}, torch.bfloat16)
    facts: dict[str, Any] = {"was_run": True, "training": train(engine, steps)}
    facts["decoding"] = {str(users): decode(engine, users, 2 if quick else 8) for users in BATCH_USERS}
    return Outcome(agreement_with_cpu(), facts)


def build_engine(shape: dict[str, Any], dtype: torch.dtype) -> Engine:
    """A random Llama of a shape, ready on the machine's accelerator if it has one.

    Args:
        shape: arguments of `LlamaConfig`; the vocabulary must hold the codes' tokens.
        dtype: of the frozen weights; what trains is float32.
    """
    materials = load_world({"template": "instruct"})
    _, tokenizer = build_backbone(materials.config.backbone, materials.semantic_ids.level_sizes, 0)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**shape, pad_token_id=tokenizer.pad_token_id))
    torch.nn.Module.to(model, dtype)
    make_ready(model)
    reader = build_reader(materials, model, tokenizer)
    peft = attach_adapter(model, AdapterConfig(r=8, lora_alpha=16), reader.builder.vocabulary.all_token_ids, seed=0)
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return Engine(materials, reader, peft)


def train(engine: Engine, steps: int) -> dict[str, Any]:
    """Tokens and targets per second of the trainer's step, the share of the card's arithmetic, and memory."""
    materials, reader = engine.materials, engine.reader
    rows = training_rows(materials, targets_of_block(materials.dataset, 0, "train"))
    options = TrainingConfig(line_tokens=LINE_TOKENS, precision="bfloat16")
    parts = adapter_parts(engine.peft)
    stage = Stage(
        name="gpu", key="", block=0, parts=parts, builder=reader.builder, train_rows=rows, valid_rows=rows, epochs=1,
        learning_rates=dict.fromkeys(parts, 1e-4), batch_targets=TARGETS_PER_STEP, weight_decay=0.01, training=options,
        seed=0,
    )  # fmt: skip
    lengths = reader.builder.row_lengths(rows)
    batches = batches_of_similar_length(lengths, rows.num_targets, TARGETS_PER_STEP, seed=0)[: steps + 2]
    optimizer = FlatOptimizer(stage.parts, stage.learning_rates, 0.01, num_steps=10_000, warmup_fraction=0.01)
    reader.model.train()

    def run(chosen: list[np.ndarray]) -> None:
        for batch in chosen:
            training_step(reader.model, reader.likelihood, stage, optimizer, batch)

    run(batches[:2])
    seconds = seconds_of(lambda: run(batches[2:]))
    tokens = int(sum(lengths[batch].sum() for batch in batches[2:]))
    targets = int(sum(rows.num_targets[batch].sum() for batch in batches[2:]))
    weights = sum(p.numel() for name, p in reader.model.named_parameters() if "proj" in name and "lora" not in name)
    facts: dict[str, Any] = {
        "tokens_per_second": tokens / seconds,
        "targets_per_second": targets / seconds,
        "tflops": 4 * weights * tokens / seconds / 1e12,  # forward, and back to the states: frozen weights need no more
    }
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        peak = next((value for key, value in PEAK_BFLOAT16_TFLOPS.items() if key in name), None)
        facts["share_of_peak"] = None if peak is None else facts["tflops"] / peak
        facts["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return facts


def decode(engine: Engine, users: int, num_batches: int) -> dict[str, Any]:
    """Users per second with 10 beams, what the constraint to real items takes of it, and memory."""
    dataset, builder = engine.materials.dataset, engine.reader.builder
    engine.reader.model.eval()
    targets = targets_of_block(dataset, 1, "test")[: users * num_batches]
    starts = np.maximum(
        dataset.user_offsets[dataset.event_user[targets]], targets - engine.materials.config.max_history
    )
    prompts = [builder.prompt(dataset.event_item[s:t]) for s, t in zip(starts, targets, strict=True)]
    prompts.sort(key=len)
    batches = [prompts[start : start + users] for start in range(0, len(prompts), users)]
    trie = build_trie(engine.materials.semantic_ids.codes, catalogue_items(dataset, "known", 1))
    settings = DecodingConfig(
        num_recommendations=BEAM_WIDTH, beam_width=BEAM_WIDTH, batch_tokens=users * len(prompts[-1])
    )
    recommender = Recommender(engine.reader.model, builder.vocabulary, settings)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()

    def seconds_of_a_batch() -> float:
        return seconds_of(lambda: [recommender.recommend(batch, trie) for batch in batches]) * users / len(prompts)

    num_codes = max(engine.materials.semantic_ids.level_sizes)
    trie_there = trie.to(engine.reader.model.device)
    steps = compare_with_decoding(seconds_of_a_batch, trie_there, users, BEAM_WIDTH, num_codes, TURNS)
    return {
        "users": len(prompts),
        "users_per_second": users / steps.median("decode"),
        "share_of_time_in_constraint": overhead_of(steps),
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }


def agreement_with_cpu() -> dict[str, Target]:
    """Compares the accelerator's losses, gradients and lists with a CPU's on a small float32 model."""
    engine = build_engine(SMALL, torch.float32)
    here = copy.deepcopy(engine.reader.model).cpu()
    here.set_attn_implementation("sdpa")
    return agreement(engine.materials, engine.reader, engine.reader.model, here)


if __name__ == "__main__":
    main()
