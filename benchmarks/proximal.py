"""What PESO's pull, or its term in the loss, adds to a step: on Llama-3.2-1B's shape and on the embedded backbone."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import PAIRS, Outcome, Target, compare, run_benchmark, seconds_of
from benchmarks.world import build_adapted_model, load_world
from peso.config import DEFAULT_STRENGTHS, AdapterConfig
from peso.data.examples import targets_of_block
from peso.lm.adapters import attach_adapter
from peso.lm.parameters import FlatParameters
from peso.methods.proximal import normalised_term
from peso.methods.pull import softmax_pull
from peso.training.base import LORA, adapter_parts, training_rows
from peso.training.optimisation import FlatOptimizer
from peso.training.pulled_steps import PulledSteps
from peso.training.stage import AddPenalty
from peso.training.steps import add_penalty_gradient, clip_gradient
from peso.training.trainer import STEPS_PER_LOG

LARGEST_SHARE = 1.0
LLAMA_VOCABULARY = 1024  # the real 128,256 rows would only make the step longer, and the term's share smaller
LLAMA_LAYERS, QUICK_LLAMA_LAYERS, LLAMA_TOKENS = 16, 2, 128

Step = Callable[[AddPenalty], None]
"""One training step; what is given adds the gradient of a penalty."""


def main() -> None:
    """Command line."""
    run_benchmark("proximal", __doc__, measure)


def measure(quick: bool) -> Outcome:
    """Both backbones."""
    torch.manual_seed(0)
    layers = QUICK_LLAMA_LAYERS if quick else LLAMA_LAYERS
    measured = {
        "llama_1b_shape": _share(*_llama_step(layers), PAIRS, steps=1),
        "embedded_backbone": _share(*_embedded_step(), PAIRS * 3, steps=STEPS_PER_LOG // 4 if quick else STEPS_PER_LOG),
    }
    targets = {
        f"{name}_{form}_added_percent": Target(facts[f"{form}_added_percent"], LARGEST_SHARE, "at_most", "%")
        for name, facts in measured.items()
        for form in ("pull", "term")
    }
    return Outcome(
        targets, measured | {"data": load_world().dataset.source, "llama_layers": layers, "llama_tokens": LLAMA_TOKENS}
    )


def _share(parts: dict[str, FlatParameters], step: Step, turns: int, steps: int) -> dict[str, Any]:
    """Times steps with and without the term, and the term and the pull on their own.

    Whole steps differ by more than 1 % from one to the next on a busy machine, so the share that counts is the
    term's own time over the time of the step without it, both measured in turns; the difference of whole steps is
    reported beside it. The times of both include what their logs cost.
    """
    lora = parts[LORA]
    anchors = {name: part.groups(part.snapshot()) for name, part in parts.items()}
    with torch.no_grad():
        lora.data.add_(torch.randn_like(lora.data), alpha=1e-3)
    distance = normalised_term(anchors[LORA])
    pulls = {name: softmax_pull(anchor, DEFAULT_STRENGTHS["decoupled"]) for name, anchor in anchors.items()}
    pulled_values = {name: part.groups(part.data.detach()) for name, part in parts.items()}
    optimizer = FlatOptimizer(parts, dict.fromkeys(parts, 1e-4), 0.01, num_steps=1000, warmup_fraction=0.01)

    def pull(rates: dict[str, float]) -> None:
        for name, towards_anchor in pulls.items():
            towards_anchor(pulled_values[name], rates[name])

    add_distance = partial(distance.add_gradient, lora.groups(lora.data.detach()), lora.groups(lora.gradient))
    calls = count()

    def add_term() -> None:
        add_penalty_gradient(lora, add_distance, is_logged=next(calls) % STEPS_PER_LOG == 0)

    pulled = PulledSteps(optimizer, pull)

    def repeat(work: Callable[[], object], steps: int = steps) -> Callable[[], float]:
        return lambda: seconds_of(lambda: [work() for _ in range(steps)]) / steps

    comparison = compare(
        {
            "step": repeat(lambda: step(lambda: None)),
            "term": repeat(add_term, STEPS_PER_LOG),
            "step_with_term": repeat(lambda: step(add_term)),
            "optimizer": repeat(optimizer.step, STEPS_PER_LOG),
            "optimizer_and_pull": repeat(pulled.step, STEPS_PER_LOG),
        },
        turns,
    )
    return {
        "term_added_percent": 100 * comparison.ratio("term", "step"),
        "pull_added_percent": 100
        * (comparison.ratio("optimizer_and_pull", "step") - comparison.ratio("optimizer", "step")),
        "difference_of_steps_percent": 100 * (comparison.ratio("step_with_term", "step") - 1),
        "lora_parameters": lora.data.numel(),
        "seconds": comparison.as_json(),
    }


def _llama_step(layers: int) -> tuple[dict[str, FlatParameters], Step]:
    """A step on one line of tokens with the shapes of Llama-3.2-1B, float32."""
    config = LlamaConfig(
        vocab_size=LLAMA_VOCABULARY,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
        use_cache=False,
    )
    adapter = AdapterConfig(r=8, lora_alpha=16)  # as the presets for language models have it
    adapted = attach_adapter(LlamaForCausalLM(config), adapter, range(LLAMA_VOCABULARY // 2), seed=0)
    parts = adapter_parts(adapted)
    tokens = torch.randint(LLAMA_VOCABULARY, (1, LLAMA_TOKENS))
    return parts, _stepper(parts, adapted, lambda: adapted(input_ids=tokens, labels=tokens).loss)


def _embedded_step() -> tuple[dict[str, FlatParameters], Step]:
    """A step on a batch of block 1 with the default configuration."""
    materials = load_world()
    world = build_adapted_model(materials)
    reader, training = world.reader, materials.config.training
    rows = training_rows(materials, targets_of_block(materials.dataset, 1, "train"))
    size = int((rows.num_targets.cumsum() <= training.batch_targets).sum())
    chosen = rows.take(torch.arange(size).numpy())
    parts = adapter_parts(world.peft)

    def loss() -> Tensor:
        batch = reader.builder.batch(chosen, training.line_tokens)
        return reader.likelihood.negative_log_likelihood(reader.model, batch).mean()

    return parts, _stepper(parts, world.peft, loss)


def _stepper(parts: dict[str, FlatParameters], model: PeftModel, loss: Callable[[], Tensor]) -> Step:
    """What the trainer does with one batch."""
    optimizer = FlatOptimizer(parts, dict.fromkeys(parts, 1e-4), 0.01, num_steps=1000, warmup_fraction=0.01)
    model.train()

    def step(add_penalty: AddPenalty) -> None:
        optimizer.zero_gradients()
        loss().backward()
        clip_gradient(optimizer, 1.0)
        add_penalty()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
