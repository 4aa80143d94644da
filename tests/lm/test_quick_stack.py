"""The written-out decoder stack against the model's own code: states, gradients, and when it must stand back."""

import copy
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from peso.config import AdapterConfig
from peso.lm.adapters import attach_adapter
from peso.lm.backbone import body_of
from peso.lm.decoder_layer import LayerShape, decoder_layer
from peso.lm.merging import merge_adapter
from peso.lm.product import AdaptedRows, Product, with_adapters
from peso.lm.quick_stack import LONGEST, is_written_out, layer_by_layer, states_at, write_out_stack

TOKENS = range(5, 25)
WIDTHS = {"vocab_size": 30, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SOME = ("q_proj", "v_proj", "up_proj")


def llama(**options: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**(WIDTHS | {"num_attention_heads": 4} | options))  # type: ignore[arg-type]
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def shaken(model: PeftModel) -> PeftModel:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def adapter(model: LlamaForCausalLM, **options: Any) -> PeftModel:
    return shaken(attach_adapter(model, AdapterConfig(r=3, lora_alpha=16, **options), TOKENS, seed=0))


def has_own_forward(model: LlamaForCausalLM) -> bool:
    return "forward" in body_of(model).__dict__


def mask_of(length: int) -> Tensor:
    """Tokens of two users in one line, who do not see each other."""
    user = torch.arange(length) > length // 3
    seen = (user[:, None] == user) & torch.ones(length, length, dtype=torch.bool).tril()
    return torch.zeros(2, 1, length, length).masked_fill_(~seen, torch.finfo(torch.float32).min)


def results(model: LlamaForCausalLM, trained: nn.Module, ids: Tensor, **inputs: Any) -> list[Tensor]:
    states = body_of(model)(input_ids=ids, use_cache=False, **inputs).last_hidden_state
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(3))
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad((states * weights).sum(), parameters, allow_unused=True)
    return [states.detach(), *(torch.zeros(1) if gradient is None else gradient for gradient in gradients)]


def assert_equal(model: LlamaForCausalLM, trained: nn.Module, **inputs: Any) -> None:
    ids = torch.randint(30, (2, 14), generator=torch.Generator().manual_seed(2))
    assert has_own_forward(model)
    ours = results(model, trained, ids, **inputs)
    body = body_of(model)
    forward = body.__dict__.pop("forward")
    theirs = results(model, trained, ids, **inputs)
    body.__dict__["forward"] = forward
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("options", [{}, {"num_key_value_heads": 2}, {"num_key_value_heads": 1, "head_dim": 16}])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("modules", [AdapterConfig().target_modules, SOME])
def test_states_and_gradients_with_an_adapter(options: dict[str, int], masked: bool, modules: tuple[str, ...]) -> None:
    model = llama(**options)
    write_out_stack(model)
    peft = adapter(model, target_modules=modules)
    positions = torch.arange(14) % 5 + 3
    inputs = {"attention_mask": mask_of(14), "position_ids": positions.expand(2, -1)} if masked else {}
    assert_equal(model, peft, **inputs)


@pytest.mark.parametrize("options", [{}, {"num_key_value_heads": 2}])
def test_states_and_gradients_when_every_weight_trains(options: dict[str, int]) -> None:
    model = llama(**options)
    write_out_stack(model)
    assert_equal(model, model)


def test_frozen_weights_get_no_gradient_and_folded_ones_follow_a_change() -> None:
    model = llama()
    write_out_stack(model)
    peft = adapter(model)
    assert_equal(model, peft)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "base_layer" in name or "layernorm" in name:
                parameter.mul_(1.1)
    assert_equal(model, peft)
    body_of(model)(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False).last_hidden_state.sum().backward()
    for name, parameter in peft.named_parameters():
        assert parameter.requires_grad or parameter.grad is None, name


@pytest.mark.parametrize("modules", [("k_proj", "v_proj"), ("up_proj",)])
def test_a_merged_adapter_is_in_the_folded_weights(modules: tuple[str, ...]) -> None:
    """PEFT adds it to weights in a way that torch does not count."""
    model = llama()
    write_out_stack(model)
    peft = adapter(model, target_modules=modules)
    ids = torch.tensor([[1, 2, 3, 4]])
    beside = states_at(model, ids, None, None, torch.arange(4))
    merged = merge_adapter(peft).requires_grad_(False)
    inside = states_at(merged, ids, None, None, torch.arange(4))
    assert beside is not None and inside is not None
    torch.testing.assert_close(inside, beside.detach(), rtol=1e-4, atol=1e-5)


def test_a_pass_without_gradients_leaves_nothing_that_a_later_one_cannot_use() -> None:
    model = llama()
    write_out_stack(model)
    peft = adapter(model)
    with torch.inference_mode():
        body_of(model)(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)
    assert_equal(model, peft)


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_way_back_against_finite_differences_in_float64(adapted: bool, masked: bool) -> None:
    torch.manual_seed(0)
    shape = LayerShape(2, 4, 1, 2, 4, 1e-6, 1e-5)
    turns = torch.polar(torch.ones(1, 1, 4, 2, dtype=torch.float64), torch.randn(1, 1, 4, 2, dtype=torch.float64))
    bias = mask_of(4).double() if masked else torch.full((4, 4), float("-inf"), dtype=torch.float64).triu_(1)
    sizes = [(16, 6), (6, 8), (10, 6), (6, 5)]
    bases = [torch.randn(size, dtype=torch.float64) for size in sizes]
    free = [torch.randn(size, dtype=torch.float64).requires_grad_() for size in sizes]
    lows = [torch.randn(3, size[1], dtype=torch.float64).requires_grad_() for size in sizes]
    ups = [(torch.randn(size[0], 3, dtype=torch.float64) * 0.3).requires_grad_() for size in sizes]
    states = torch.randn(8, 6, dtype=torch.float64, requires_grad=True)

    def with_adapter(states: Tensor, *factors: Tensor) -> Tensor:
        adapted = [[AdaptedRows.fold(0, a, b)] for a, b in zip(factors[:4], factors[4:], strict=True)]
        products = [Product(with_adapters(w, parts), parts) for w, parts in zip(bases, adapted, strict=True)]
        return decoder_layer(states, turns, bias, shape, products)

    def all_weights(states: Tensor, *weights: Tensor) -> Tensor:
        return decoder_layer(states, turns, bias, shape, [Product(weight) for weight in weights])

    assert torch.autograd.gradcheck(all_weights, (states, *free))
    if adapted:
        # W is detached, so finite differences would miss A and B: compare with the gradient through a W that is not.
        output = with_adapter(states, *lows, *ups)
        outer = torch.randn_like(output)
        ours = torch.autograd.grad((output * outer).sum(), [states, *lows, *ups])
        whole = all_weights(states, *(w + b @ a for w, a, b in zip(bases, lows, ups, strict=True)))
        for one, other in zip(ours, torch.autograd.grad((whole * outer).sum(), [states, *lows, *ups]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "case", ["long", "cache", "dropout", "checkpointing", "autocast", "two adapters", "padding mask"]
)
def test_it_stands_back_where_it_is_not_meant_for(case: str) -> None:
    model = llama()
    write_out_stack(model)
    peft = adapter(model, lora_dropout=0.5 if case == "dropout" else 0.0)
    ids = torch.randint(30, (2, LONGEST + 1 if case == "long" else 6))
    inputs: dict[str, Any] = {"use_cache": case == "cache"}
    if case == "checkpointing":
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": False})
    if case == "dropout":
        model.train()
    if case == "two adapters":
        second = copy.deepcopy(peft.peft_config["default"])
        second.trainable_token_indices = None  # type: ignore[attr-defined]
        peft.add_adapter("second", second)
        peft.base_model.set_adapter(["default", "second"])  # type: ignore[operator]
    if case == "padding mask":
        inputs["attention_mask"] = torch.ones(2, 6, dtype=torch.int64)
    seen: list[str] = []
    layer = body_of(model).get_submodule("layers.0")
    layer.register_forward_hook(lambda *_: seen.append("own"))
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        body_of(model)(input_ids=ids, **inputs)
    assert seen == ["own"]


def test_another_kind_of_model_is_left_alone() -> None:
    torch.manual_seed(0)
    config = Qwen3Config(**WIDTHS, num_attention_heads=4, num_key_value_heads=2, head_dim=8)  # type: ignore[arg-type]
    qwen = Qwen3ForCausalLM(config)
    write_out_stack(qwen)
    biased = llama(attention_bias=True)
    write_out_stack(biased)
    assert not has_own_forward(qwen) and not has_own_forward(biased)  # type: ignore[arg-type]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("trains", ["adapter", "everything"])
@pytest.mark.parametrize("layers", [1, 3])
def test_states_at_some_places(masked: bool, trains: str, layers: int) -> None:
    """Values and gradients of a few places, out of order and one twice, are those of a pass over everything."""
    model = llama(num_hidden_layers=layers, num_key_value_heads=2)
    write_out_stack(model)
    trained = adapter(model) if trains == "adapter" else model
    ids = torch.randint(5, 25, (2, 14), generator=torch.Generator().manual_seed(2))
    assert is_written_out(model, ids)
    positions = (torch.arange(14) % 5 + 3).expand(2, -1)
    mask, at = (mask_of(14), positions) if masked else (None, None)
    places = torch.tensor([27, 3, 13, 3, 14])
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    some = states_at(model, ids, mask, at, places)
    assert some is not None
    with layer_by_layer(model):
        inputs = {} if mask is None else {"attention_mask": mask, "position_ids": positions}
        whole = body_of(model)(input_ids=ids, use_cache=False, **inputs).last_hidden_state.flatten(0, 1)[places]
    torch.testing.assert_close(some, whole, rtol=1e-4, atol=1e-4)
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(3))
    ours, theirs = (
        torch.autograd.grad((states * weights).sum(), parameters, allow_unused=True) for states in (some, whole)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_gradients_of_any_rank_are_those_of_the_formula(rank: int) -> None:
    """Thin products or the whole matrix's gradient, whichever is less work: the same gradients."""
    model = llama()
    write_out_stack(model)
    peft = shaken(attach_adapter(model, AdapterConfig(r=rank, lora_alpha=16), TOKENS, seed=0))
    assert_equal(model, peft)
