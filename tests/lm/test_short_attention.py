"""Attention over short rows in plain products: the model's own function, values and gradients."""

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from peso.lm.short_attention import LONGEST, ShortAttention, attending_in_products


def model_of(key_heads: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=key_heads,
        intermediate_size=24, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def states_and_gradient(model: LlamaForCausalLM, ids: Tensor, mask: Tensor | None, short: bool) -> tuple[Tensor, ...]:
    model.zero_grad()
    with attending_in_products(model, ids.shape[1] if short else LONGEST + 1):
        assert (model.config._attn_implementation == "sdpa") is not short
        states = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    states.square().mean().backward()
    return states.detach(), *(parameter.grad for parameter in model.model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("key_heads", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_scaled_dot_products(key_heads: int, masked: bool) -> None:
    model = model_of(key_heads)
    ids = torch.randint(1, 30, (3, 11), generator=torch.Generator().manual_seed(1))
    hidden = torch.rand(3, 1, 11, 11, generator=torch.Generator().manual_seed(2)) < 0.4
    hidden = (hidden | torch.ones(11, 11, dtype=torch.bool).triu(1)) & ~torch.eye(11, dtype=torch.bool)
    mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min) if masked else None
    results = [states_and_gradient(model, ids, mask, short) for short in (True, False)]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_gradcheck() -> None:
    query, key, value = (torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = torch.full((4, 4), -1e9, dtype=torch.float64).triu_(1)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attended: Tensor = ShortAttention.apply(q, k, v, bias, 0.7)  # type: ignore[no-untyped-call]
        return attended

    assert torch.autograd.gradcheck(attend, (query, key, value))


def test_long_rows_dropout_and_other_models_keep_their_own_way() -> None:
    model = model_of()
    with attending_in_products(model, LONGEST + 1):
        assert model.config._attn_implementation == "sdpa"
    model.config.attention_dropout = 0.1
    model.train()
    with attending_in_products(model, 10):
        assert model.config._attn_implementation == "sdpa"
