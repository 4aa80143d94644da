"""The written-out decoder stack against the model's own layers."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from peso.config import AdapterConfig
from peso.decoding.body import Body
from peso.decoding.branches import StockBody
from peso.decoding.quick_body import QuickBody, quick_body
from peso.lm.adapters import attach_adapter
from peso.lm.device import make_ready

WIDTHS = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}


def llama(**options: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**WIDTHS, **({"num_attention_heads": 4} | options)))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def states_of(body: Body, longest: int) -> list[torch.Tensor]:
    """Of histories of several lengths, and of three steps of beams that cross."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([longest, 1, longest // 2])
    prompts = torch.randint(40, (3, longest), generator=generator)
    at_last, beams = body.read(prompts, lengths)
    found = [at_last]
    for num_beams, earlier in ((4, 1), (6, 4), (6, 6)):
        tokens = torch.randint(40, (3, num_beams), generator=generator)
        found.append(beams.extend(tokens, torch.randint(earlier, (3, num_beams), generator=generator)))
    return found


def assert_equal(model: PreTrainedModel, longest: int) -> None:
    for ours, theirs in zip(states_of(quick_body(model), longest), states_of(StockBody(model), longest), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_key_value_heads": 2}, {"num_key_value_heads": 1, "head_dim": 16}])
@pytest.mark.parametrize("longest", [2, 17, 120])
def test_it_equals_the_models_own_layers(options: dict[str, int], longest: int) -> None:
    model = llama(**options)
    assert isinstance(quick_body(model), QuickBody)
    assert_equal(model, longest)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    ],
)
def test_it_turns_positions_as_the_model_does(rope: dict[str, object]) -> None:
    model = llama(rope_parameters=rope | {"rope_theta": 10_000.0})
    assert isinstance(quick_body(model), QuickBody)
    assert_equal(model, 30)


def test_the_adapter_is_part_of_it() -> None:
    model = make_ready(llama())
    adapted = attach_adapter(model, AdapterConfig(r=8, lora_alpha=16), range(5, 30), seed=0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    adapted.eval()
    assert isinstance(quick_body(model), QuickBody)
    assert_equal(model, 12)
    with adapted.disable_adapter():
        plain = states_of(StockBody(model), 12)
    assert not torch.allclose(plain[0], states_of(quick_body(model), 12)[0], atol=1e-3)


def test_a_model_that_computes_something_else_keeps_its_own_layers() -> None:
    torch.manual_seed(0)
    qwen = Qwen3ForCausalLM(Qwen3Config(**WIDTHS, num_attention_heads=4, num_key_value_heads=2, head_dim=8))  # type: ignore[arg-type]
    gated = llama(hidden_act="gelu")
    biased = llama(attention_bias=True)
    wider = llama()
    wider.bfloat16()
    other = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40))
    windowed = MistralForCausalLM(MistralConfig(**WIDTHS, num_attention_heads=4, sliding_window=8))  # type: ignore[arg-type]
    models: tuple[PreTrainedModel, ...] = (qwen, windowed, gated, biased, wider, other)
    for model in models:
        model.train(False)
        assert isinstance(quick_body(model), StockBody)
