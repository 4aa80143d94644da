"""Weights in few bits: refused where they cannot be, left to PEFT's own layers where they are, counted in plans."""

from importlib.util import find_spec
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import peso.lm.backbone as backbone_room
import peso.lm.quantisation as room
import peso.training.stream as stream_room
from commands import assert_one_sentence, peso
from language_models import write_language_model
from peso.config import AdapterConfig, RunConfig, dump_config, make_config
from peso.errors import ConfigError, InstallationError, WorkspaceError
from peso.lm.adapters import attach_adapter
from peso.lm.backbone import body_of, load_weights
from peso.lm.device import make_ready
from peso.lm.folding import UnknownLayerError, folded_products
from peso.lm.lora_linear import can_merge, settled_weights
from peso.lm.low_rank import adapted_layers
from peso.lm.quantisation import check_quantisation, loading_options, quantised_bytes
from peso.training.exporting import export_version
from peso.training.materials import load_materials
from peso.training.planning import plan_run
from peso.training.stream import run_stream
from streams import config, fill

NF4 = {"quantisation": "nf4"}
SHAPE = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
BITS_PER_WEIGHT = 4 + 8 / 64 + 32 / (64 * 256)


def config_of(source: Path, **backbone: Any) -> RunConfig:
    return config(
        method="peso",
        backbone={"source": str(source)} | backbone,
        adapter={"r": 2, "lora_alpha": 4, "target_modules": ["all-linear"]},
        training={"epochs": 1},
    )


class Halved(nn.Linear):
    """Stands for a layer that stores something else than the matrix it multiplies by."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight / 2, self.bias)


def test_a_linear_layer_of_another_kind_goes_the_way_of_its_library(tmp_path: Path) -> None:
    """Were `weight` read instead of the layer called, every product would be twice what it is."""
    model = make_ready(load_weights(write_language_model(tmp_path / "lm", "llama")))
    for layer in body_of(model).layers:  # type: ignore[union-attr]
        layer.self_attn.q_proj.__class__ = Halved
        layer.mlp.down_proj.__class__ = Halved
    adapted = attach_adapter(
        model, AdapterConfig(r=4, lora_alpha=8, target_modules=("all-linear",)), range(5, 25), seed=0
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    layers = adapted_layers(adapted)
    assert {name.split(".")[-1] for name, layer in layers.items() if not can_merge(layer)} == {"q_proj", "down_proj"}
    with pytest.raises(UnknownLayerError):
        folded_products(body_of(model).layers[0])  # type: ignore[index]
    tokens = torch.arange(3, 15)[None]

    def states_and_gradients() -> list[Tensor]:
        adapted.zero_grad()
        states = body_of(model)(input_ids=tokens, use_cache=False).last_hidden_state
        (states.flatten() * torch.linspace(-1, 1, states.numel())).sum().backward()
        return [states.detach(), *(p.grad.clone() for p in adapted.parameters() if p.grad is not None)]

    ours = states_and_gradients()
    with settled_weights(model), torch.no_grad():
        settled = body_of(model)(input_ids=tokens, use_cache=False).last_hidden_state
    body_of(model).__dict__.pop("forward", None)
    for layer in layers.values():
        layer.__dict__["forward"] = MethodType(LoraLinear.forward, layer)
    theirs = states_and_gradients()
    assert len(ours) > 20
    for one, other in zip([*ours, settled], [*theirs, theirs[0]], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.skipif(
    torch.cuda.is_available() or find_spec("bitsandbytes") is not None, reason="there is CUDA, or a library that warns"
)
def test_without_cuda_the_command_says_so_in_one_sentence(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "world", num_users=30)
    (tmp_path / "nf4.toml").write_text(dump_config(config_of(tmp_path / "lm", **NF4)))
    done = peso("run", "--workspace", workspace, "--config", tmp_path / "nf4.toml")
    assert_one_sentence(done, 'backbone.quantisation "nf4" needs a CUDA device', "there is none here")
    assert not (workspace / "runs").exists()
    done = peso("plan", "--workspace", workspace, "--config", tmp_path / "nf4.toml")
    assert_one_sentence(done, 'backbone.quantisation "nf4" needs a CUDA device')


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    with pytest.raises(InstallationError, match=r"library bitsandbytes.*peso-rec\[gpu\]"):
        check_quantisation("nf4")
    check_quantisation("none")


def test_four_bits_are_refused_where_weights_train_or_are_shared_out() -> None:
    with pytest.raises(ConfigError, match="stores a language model that is loaded and stays frozen"):
        make_config(None, {"backbone": NF4})
    with pytest.raises(ConfigError, match="stores a language model that is loaded and stays frozen"):
        make_config(None, {"backbone": NF4 | {"source": "lm"}, "method": "full"})
    with pytest.raises(ConfigError, match="not cut into shards"):
        make_config(None, {"backbone": NF4 | {"source": "lm"}, "training": {"sharding": "fsdp"}})


def test_weights_as_they_come_go_unnamed_so_that_ids_stay() -> None:
    plain = make_config(None, {"backbone": {"source": "lm"}})
    named = make_config(None, {"backbone": {"source": "lm", "quantisation": "none"}})
    assert plain.model_dump(mode="json") == named.model_dump(mode="json")
    chosen = make_config(None, {"backbone": {"source": "lm"} | NF4})
    assert chosen.base_part()["backbone"]["quantisation"] == "nf4"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plan_counts_four_bits_and_a_matrix_spelled_out(tmp_path: Path, dtype: torch.dtype) -> None:
    source = write_language_model(tmp_path / "lm", "llama", dtype, shape=SHAPE)
    workspace = fill(tmp_path / "world", num_users=30)
    plans = [plan_run(load_materials(workspace, config_of(source, **more)), 1.0, 1.0) for more in ({}, NF4)]
    width, inner, of_key = 64, 128, 32
    per_layer = 2 * width * width + 2 * width * of_key + 3 * width * inner
    saved = 3 * per_layer * (dtype.itemsize - BITS_PER_WEIGHT / 8)
    for whole, packed in zip(plans[0].stages, plans[1].stages, strict=True):
        assert whole.weights_bytes - packed.weights_bytes == pytest.approx(saved, rel=1e-4)
        assert packed.state_bytes == whole.state_bytes
    assert plans[1].num_parameters == plans[0].num_parameters


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_a_run_in_four_bits_is_one_on_the_rounded_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes has slow kernels for a CPU: enough to see that what peso does around them is right."""
    from bitsandbytes.functional import dequantize_4bit

    for place in (room, backbone_room, stream_room):
        monkeypatch.setattr(place, "check_quantisation", lambda quantisation: None)
    source = write_language_model(tmp_path / "lm", "llama", shape=SHAPE)
    workspace = fill(tmp_path / "world", num_users=30)
    run = run_stream(workspace, config_of(source, **NF4))
    (base,) = workspace.glob("bases/*/backbone")
    stored = load_weights(base)
    assert sum(one.nbytes for one in load_file(base / "model.safetensors").values()) < 0.6 * sum(
        one.nbytes for one in load_file(source / "model.safetensors").values()
    )
    plain = load_weights(source).requires_grad_(False)
    saved, _ = quantised_bytes(body_of(plain))
    layers = {name: module for name, module in body_of(stored).named_modules() if type(module).__name__ == "Linear4bit"}
    assert len(layers) == 3 * 7
    packed = sum(layer.get_parameter("weight").nbytes for layer in layers.values())
    whole = sum(body_of(plain).get_parameter(f"{name}.weight").nbytes for name in layers)
    assert whole - packed == pytest.approx(saved, rel=0.01)
    for name, layer in layers.items():
        rounded = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        target = body_of(plain).get_submodule(name)
        assert isinstance(target.weight, nn.Parameter)
        torch.testing.assert_close(rounded.float(), target.weight.data, rtol=0, atol=0.15)
        target.weight.data = rounded.float()
    tokens = torch.arange(3, 40)[None]
    states = [body_of(model)(input_ids=tokens).last_hidden_state.detach() for model in (stored, plain)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0.05 * float(states[1].abs().max()))
    adapters = [load_file(run / f"adapters/block_{block}/adapter_model.safetensors") for block in (0, 2)]
    assert all(matrix.dtype == torch.float32 for matrix in adapters[1].values())
    assert sum(not torch.equal(adapters[0][name], matrix) for name, matrix in adapters[1].items()) >= 3 * 7 * 2
    with pytest.raises(WorkspaceError, match="nothing can be merged"):
        export_version(workspace, tmp_path / "out", "merged")
    assert loading_options("none") == {}
