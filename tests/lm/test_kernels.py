"""Fused kernels of other libraries: chosen where they serve, the same numbers there, and no trace of them elsewhere."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.models.llama import modeling_llama

import peso.lm.kernels as room
from language_models import write_language_model
from peso.config import AdapterConfig, make_config
from peso.data.examples import targets_of_block
from peso.lm.adapters import attach_adapter
from peso.lm.backbone import body_of, load_weights
from peso.lm.device import make_ready
from peso.lm.kernels import FLASH, LIGER, kernels_for, use_kernels
from peso.lm.likelihood import hidden_states
from peso.lm.rows import many_targets_per_row
from peso.types import Kernels
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="fused kernels need a CUDA device")


def states_and_gradients(folder: Path, kernels: Kernels) -> list[Tensor]:
    model = make_ready(load_weights(folder), kernels=kernels)
    adapted = attach_adapter(
        model, AdapterConfig(r=4, lora_alpha=8, target_modules=("all-linear",)), range(5, 25), seed=0
    ).train()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = (0.1 * torch.randn(parameter.shape, generator=generator)).to(parameter)
    tokens = torch.arange(3, 33, device=model.device).view(2, 15)
    states = body_of(model)(input_ids=tokens, use_cache=False).last_hidden_state
    (states.flatten().float() * torch.linspace(-1, 1, states.numel(), device=model.device)).sum().backward()
    gradients = [parameter.grad for parameter in adapted.parameters() if parameter.grad is not None]
    assert len(gradients) > 20
    return [states.detach(), *gradients]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_auto_is_stock_bit_for_bit_and_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_language_model(tmp_path / "lm", "llama")
    monkeypatch.setattr(room, "find_spec", lambda name: pytest.fail(f"{name} was asked for"))
    auto, stock = states_and_gradients(folder, "auto"), states_and_gradients(folder, "stock")
    assert all(torch.equal(one, other) for one, other in zip(auto, stock, strict=True))
    assert kernels_for(AutoConfig.from_pretrained(folder), "auto") == []


@pytest.mark.parametrize(
    ("family", "dtype", "installed", "expected"),
    [
        ("llama", torch.bfloat16, {"liger_kernel", "flash_attn"}, [LIGER, FLASH]),
        ("qwen3", torch.float32, {"liger_kernel", "flash_attn"}, [LIGER]),
        ("gpt2", torch.bfloat16, {"liger_kernel", "flash_attn"}, [FLASH]),
        ("gemma", torch.float32, {"liger_kernel", "flash_attn"}, []),
        ("llama", torch.bfloat16, {"flash_attn"}, [FLASH]),
        ("llama", torch.bfloat16, set(), []),
    ],
)
def test_kernels_are_those_that_are_there_and_serve(
    family: str,
    dtype: torch.dtype,
    installed: set[str],
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = AutoConfig.from_pretrained(write_language_model(tmp_path / "lm", family, dtype))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(room, "find_spec", lambda name: name if name in installed else None)
    assert kernels_for(config, "auto") == expected
    assert kernels_for(config, "stock") == []


def test_liger_changes_this_model_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the manner of Liger: the model's norms, and the library's class for all models to come."""
    asked: dict[str, Any] = {}

    def apply(model: Any, **options: bool) -> None:
        asked.update(options)
        monkeypatch.setattr(modeling_llama, "LlamaRMSNorm", nn.Identity)  # undone after the test, whatever happens
        model.model.norm.__dict__["forward"] = lambda states: states

    fake = ModuleType("liger_kernel.transformers")
    fake.__dict__["_apply_liger_kernel_to_instance"] = apply
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", fake)
    monkeypatch.setattr(room, "kernels_for", lambda config, chosen: [LIGER])
    usual = modeling_llama.LlamaRMSNorm
    folder = write_language_model(tmp_path / "lm", "llama")
    model, other = load_weights(folder), load_weights(folder)
    use_kernels(model, "auto")
    assert modeling_llama.LlamaRMSNorm is usual
    assert asked == {
        "rope": False, "rms_norm": True, "swiglu": True, "cross_entropy": False, "fused_linear_cross_entropy": False
    }  # fmt: skip
    tokens = torch.arange(3, 10)[None]
    states = [body_of(one)(input_ids=tokens).last_hidden_state for one in (model, other, load_weights(folder))]
    assert not torch.allclose(states[0], states[1])
    assert torch.equal(states[1], states[2])


def test_lines_that_targets_share_keep_their_own_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tiny_dataset()
    model, tokenizer = tiny_backbone()
    monkeypatch.setattr(room, "kernels_for", lambda config, chosen: [FLASH])
    usual = model.config._attn_implementation
    use_kernels(model, "auto")
    used: list[str] = []

    def note(**options: Any) -> SimpleNamespace:
        used.append(model.config._attn_implementation)
        return SimpleNamespace(last_hidden_state=options["input_ids"])

    body_of(model).__dict__["forward"] = note
    rows = many_targets_per_row(dataset, targets_of_block(dataset, 0, "train"), 5, 3)
    for template in ("sid", "instruct"):
        builder, _ = tiny_builder(tokenizer, dataset, tiny_codes(), template)
        hidden_states(model, builder.batch(rows))
    assert used[0] == FLASH
    assert used[1] != FLASH
    assert model.config._attn_implementation == usual


def test_the_usual_choice_goes_unnamed_so_that_ids_stay() -> None:
    plain, named = make_config(None, {}), make_config(None, {"training": {"kernels": "auto"}})
    assert plain.model_dump(mode="json") == named.model_dump(mode="json")
    assert "kernels" not in plain.base_part()["training"]
    assert make_config(None, {"training": {"kernels": "stock"}}).base_part()["training"]["kernels"] == "stock"


@needs_cuda
@pytest.mark.skipif(find_spec("liger_kernel") is None, reason="liger-kernel is not installed")
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_on_cuda_liger_gives_the_stock_numbers(family: str, tmp_path: Path) -> None:
    folder = write_language_model(tmp_path / "lm", family)
    for one, other in zip(*(states_and_gradients(folder, kernels) for kernels in ("auto", "stock")), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@needs_cuda
@pytest.mark.skipif(find_spec("flash_attn") is None, reason="flash-attn is not installed")
def test_on_cuda_flash_attention_gives_the_stock_states(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    folder = write_language_model(tmp_path / "lm", "llama", torch.bfloat16)
    states = []
    for kernels in ("auto", "stock"):
        model = make_ready(load_weights(folder), kernels=kernels)
        _, tokenizer = tiny_backbone()
        builder, _ = tiny_builder(tokenizer, dataset, tiny_codes(), "sid")
        rows = many_targets_per_row(dataset, targets_of_block(dataset, 0, "train"), 5, 3)
        batch = builder.batch(rows).to(model.device)
        states.append(hidden_states(model, batch).flatten(0, 1)[batch.answer_index].detach().float())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0.1 * float(states[1].abs().max()))
