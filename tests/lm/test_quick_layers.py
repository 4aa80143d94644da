"""Quicker LoRA layers and token rows: the same function and gradients as PEFT's own, at its parameters."""

import copy
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from peso.config import AdapterConfig
from peso.lm.adapters import attach_adapter
from peso.lm.lora_linear import settled_weights
from peso.lm.quick_layers import GatedProduct, RmsNorm, write_out_layers
from peso.lm.token_rows import head_rows

TOKENS = [3, 4, 5, 9, 20, 21]


def adapted(tied: bool = False, dropout: float = 0.0) -> tuple[LlamaForCausalLM, PeftModel]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        tie_word_embeddings=tied, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    peft_model = attach_adapter(model, AdapterConfig(r=8, lora_alpha=16, lora_dropout=dropout), TOKENS, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model, peft_model


def as_peft_does(model: PeftModel) -> PeftModel:
    """A copy whose layers compute in PEFT's own way."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, LoraLinear | TrainableTokensLayer):
            module.__dict__.pop("forward", None)
    return twin


def loss_and_gradients(model: PeftModel, dtype: torch.dtype = torch.float32) -> tuple[Tensor, dict[str, Tensor]]:
    ids = torch.tensor([[1, 3, 4, 9, 20, 7, 21], [2, 5, 5, 12, 29, 3, 4]])
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("mode", ["float32", "bfloat16", "dropout"])
def test_equal_to_pefts_own_way(tied: bool, mode: str) -> None:
    _, ours = adapted(tied, 0.3 if mode == "dropout" else 0.0)
    ours.train()
    theirs = as_peft_does(ours)
    results = []
    for model in (ours, theirs):
        torch.manual_seed(5)
        results.append(loss_and_gradients(model, torch.bfloat16 if mode == "bfloat16" else torch.float32))
    (loss, gradients), (their_loss, their_gradients) = results
    atol, rtol = (2e-2, 2e-2) if mode == "bfloat16" else (1e-6, 1e-5)
    torch.testing.assert_close(loss, their_loss, atol=atol, rtol=rtol)
    assert gradients.keys() == their_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], atol=atol, rtol=rtol)


def test_nothing_is_computed_for_frozen_weights() -> None:
    _, ours = adapted()
    ours.train()
    _, gradients = loss_and_gradients(ours)
    assert len(gradients) == 2 * 7 * 2 + 2  # A and B of seven modules in two layers, and the rows of both matrices
    assert all(parameter.grad is None for parameter in ours.parameters() if not parameter.requires_grad)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("wanted", [[3, 4, 5], [20, 21], [4, 9, 3], [0, 3, 29], list(range(30))])
def test_head_rows_equal_the_merged_matrix(tied: bool, wanted: list[int]) -> None:
    model, _ = adapted(tied)
    layer = model.get_output_embeddings().token_adapter
    merged = layer.get_merged_weights(layer.active_adapters)
    rows = head_rows(model, torch.tensor(wanted))
    assert torch.equal(rows, merged[wanted])
    delta = layer.trainable_tokens_delta["default"]
    ours, theirs = (torch.autograd.grad(source.square().sum(), delta)[0] for source in (rows, merged[wanted]))
    torch.testing.assert_close(ours, theirs)


def test_a_disabled_adapter_is_the_backbone() -> None:
    model, ours = adapted()
    ids = torch.tensor([[1, 3, 4, 9]])
    with torch.no_grad(), ours.disable_adapter():
        without = model(input_ids=ids).logits
    with torch.no_grad():
        plain = ours.unload()(input_ids=ids).logits
    torch.testing.assert_close(without, plain)


def gradients_of(model: PreTrainedModel) -> list[Tensor]:
    ids = torch.tensor([[1, 3, 4, 9, 20, 7, 21], [2, 5, 5, 12, 29, 3, 4]])
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma", "gpt2"])
def test_written_out_layers_equal_the_models_own(kind: str) -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 2, "intermediate_size": 24, "head_dim": 8}  # fmt: skip
    model: PreTrainedModel
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, pad_token_id=0))
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shape, pad_token_id=0))
    elif kind == "gemma":
        model = GemmaForCausalLM(GemmaConfig(**shape, pad_token_id=0))
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs = gradients_of(model)
    write_out_layers(model)
    changed = sum("forward" in module.__dict__ for module in model.modules())
    # Gemma's norm is another formula and its gate another function; GPT-2 has neither layer.
    assert changed == {"llama": 5 + 2, "qwen3": 9 + 2, "gemma": 0, "gpt2": 0}[kind]
    for mine, other in zip(gradients_of(model), theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_written_out_formulas_pass_gradcheck() -> None:
    x, up = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def norm(states: Tensor, scale: Tensor) -> Tensor:
        normed: Tensor = RmsNorm.apply(states, scale, 1e-6)  # type: ignore[no-untyped-call]
        return normed

    assert torch.autograd.gradcheck(norm, (x, weight))
    assert torch.autograd.gradcheck(GatedProduct.apply, (x, up))


def test_settled_weights_serve_inference_and_leave_no_trace() -> None:
    _, model = adapted()
    model.eval()
    ids = torch.tensor([[1, 3, 4, 9]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with settled_weights(model):
            inside = model(input_ids=ids).logits
        for _, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
        after = model(input_ids=ids).logits
    assert torch.equal(before, inside)
    assert not torch.allclose(after, before)
