"""A plan against what happens: tensors counted in real updates, operations by formula, sizes of real files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from language_models import write_language_model
from peso.config import RunConfig
from peso.errors import ConfigError
from peso.lm.adapters import carried_of
from peso.lm.fake import without_contents
from peso.lm.live_bytes import LiveBytes
from peso.lm.shallow import ShallowBackbone
from peso.training import stage
from peso.training.averaging import SEARCH_LOSSES
from peso.training.base import validation_rows
from peso.training.base_training import prepare_base
from peso.training.materials import build_reader, load_materials
from peso.training.planning import Plan, does_fit, not_planned, plan_memory, plan_run
from peso.training.probing import FLOAT_BYTES
from peso.training.update_record import read_update
from streams import config, fill
from versions import make_versions

DEEP = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 128}
GPT2_DEEP = {"n_layer": 4}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "written-out layers": ("smollm", {}),
    "stock layers, whole tables": (
        "qwen3",
        {"adapter": {"token_rows": "all", "lora_dropout": 0.05}, "method": "single"},
    ),
    "transposed, bfloat16 passes": ("gpt2", {"training": {"precision": "bfloat16"}}),
    "checkpointing": ("qwen3", {"training": {"gradient_checkpointing": True}}),
    "a measured metric, whole tables": ("qwen3", {"adapter": {"token_rows": "all"}, "proximal": {"metric": "fisher"}}),
    "the paper's": (
        "qwen3",
        {
            "adapter": {"token_rows": "all"},
            "training": {
                "normaliser": "vocabulary",
                "precision": "bfloat16",
                "batch_targets": 16,
                "targets_per_row": 1,
            },
        },
    ),
    "factors": ("smollm", {"proximal": {"metric": "kronecker"}}),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("world"), num_users=30)


def config_of(workspace: Path, family: str, **overrides: Any) -> RunConfig:
    source = workspace / "models" / family
    if not source.exists():
        write_language_model(source, family, shape=GPT2_DEEP if family == "gpt2" else DEEP)
    adapter = {"r": 8, "lora_alpha": 16, "target_modules": ("all-linear",)} | overrides.pop("adapter", {})
    training = {"epochs": 1, "rate_factors": [1.0]} | overrides.pop("training", {})
    return config(
        backbone={"source": str(source)}, adapter=adapter, training=training, template="instruct",
        evaluation={"next_block": "off"}, **overrides,
    )  # fmt: skip


def planned(workspace: Path, chosen: RunConfig, gpu: float | None = None, teraflops: float = 1.0) -> Plan:
    return plan_run(load_materials(workspace, chosen), gpu, teraflops)


@pytest.mark.parametrize("variant", VARIANTS)
def test_memory_is_that_of_a_real_update(workspace: Path, variant: str) -> None:
    """From two and three layers to four: within 15 % of the tensors alive at the worst moment of the update itself."""
    family, overrides = VARIANTS[variant]
    chosen = config_of(workspace, family, **overrides)
    materials = load_materials(workspace, chosen)
    update = plan_memory(materials, on_gpu=False)[-1]
    adapters, measured = make_versions(workspace, materials, 3)
    assert update.total_bytes == pytest.approx(max(measured[1:]), rel=0.15)
    stored_bytes = read_update(adapters / "block_2").adapter_bytes
    assert update.num_trained * FLOAT_BYTES == pytest.approx(stored_bytes, rel=0.1)
    assert isinstance(update.total_bytes, int)


def test_a_plan_counts_parameters_and_bytes_of_a_version(workspace: Path) -> None:
    chosen = config_of(workspace, "smollm", proximal={"share": 0.9})
    plan = planned(workspace, chosen)
    materials = load_materials(workspace, chosen)
    adapters, _ = make_versions(workspace, materials, 3)
    base = prepare_base(materials, workspace / "bases")
    version = adapters / "block_2"
    assert plan.version_bytes == pytest.approx(read_update(version).adapter_bytes, rel=0.1)
    carried = carried_of(version)
    assert carried != version
    assert plan.carried_bytes == pytest.approx((carried / "adapter_model.safetensors").stat().st_size, rel=0.1)
    assert plan.num_parameters == base.num_parameters
    assert plan.fits is None
    assert plan.not_planned == []
    assert isinstance(plan.num_parameters, int)


def test_a_plan_without_the_machine_agrees(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without contents go through the model's own layers; so do real ones of a family without quick ways.

    Batches are cut into passes on a CPU only.
    """
    monkeypatch.setattr(stage, "TOKENS_OF_A_PASS", 0)
    chosen = config_of(workspace, "gpt2")
    here, there = planned(workspace, chosen), planned(workspace, chosen, gpu=1e-6)
    assert there.fits is False
    assert there.stages[-1].total_bytes == pytest.approx(here.stages[-1].total_bytes, rel=0.05)
    assert there.num_parameters == here.num_parameters
    assert [(block.num_targets, block.num_tokens) for block in there.blocks] == [
        (block.num_targets, block.num_tokens) for block in here.blocks
    ]


def test_speed_is_that_of_the_formula(workspace: Path) -> None:
    """Forward and back through frozen matrices: four operations per weight and token; attention and heads besides."""
    chosen = config_of(workspace, "smollm")
    plan = planned(workspace, chosen, gpu=80.0, teraflops=2.0)
    assert plan.fits is True
    d, f, per_key = DEEP["hidden_size"], DEEP["intermediate_size"], 2
    matrices = DEEP["num_hidden_layers"] * (2 * d * d + 2 * d * d // per_key + 3 * d * f)
    per_token = 2e12 / plan.tokens_per_second
    assert 4 * matrices < per_token < 2.5 * 4 * matrices
    assert planned(workspace, chosen, gpu=80.0, teraflops=4.0).tokens_per_second == pytest.approx(
        2 * plan.tokens_per_second
    )
    materials = load_materials(workspace, chosen)
    shallow = ShallowBackbone(chosen.backbone, materials.semantic_ids.level_sizes)
    builder = build_reader(materials, shallow.build(1), shallow.tokenizer).builder
    for block in plan.blocks[1:]:
        valid = validation_rows(materials, block.block)
        num_validated = (chosen.training.epochs + SEARCH_LOSSES) * int(builder.row_lengths(valid).sum())
        in_steps = block.num_tokens + num_validated / 2  # forward alone is half of forward and back
        assert block.hours == pytest.approx(in_steps / plan.tokens_per_second / 3600, rel=0.15)


def test_hours_are_those_of_the_method(workspace: Path) -> None:
    """Retraining counts all blocks so far, a search for strength or rates the passes of all candidates."""

    def tokens(factors: Sequence[float] = (1.0,), **overrides: Any) -> list[int]:
        training = {"epochs": 3, "rate_factors": factors}
        plan = planned(workspace, config(training=training, **overrides), gpu=80.0)
        return [block.num_tokens for block in plan.blocks]

    one, anew, chosen = tokens(), tokens(method="retrain"), tokens(proximal={"strength": "auto"})
    assert anew[0] == one[0] == chosen[0]
    assert anew[2] > anew[1] > one[1]
    assert all(2 * one[block] < chosen[block] < 5 * one[block] for block in (1, 2))
    paced = tokens((0.5, 0.25, 1.0))
    assert (paced[0], paced[1], paced[2]) == (one[0], 3 * one[1], 3 * one[2])  # a start and both neighbours


def test_what_is_left_out_is_said(workspace: Path) -> None:
    aligned = config_of(workspace, "smollm", method="sum_lora", alignment={"epochs": 2})
    assert not_planned(aligned) == ["the alignment of titles with semantic IDs", "past adapters"]
    assert not_planned(config_of(workspace, "smollm")) == []


@pytest.mark.parametrize("method", ["full", "frozen"])
def test_a_method_without_an_adapter_is_refused(workspace: Path, method: str) -> None:
    with pytest.raises(ConfigError, match="trains no adapter"):
        planned(workspace, config_of(workspace, "smollm", method=method))


def test_what_does_not_fit() -> None:
    """A tenth is kept free."""
    assert not does_fit(1000, memory_bytes=1111)
    assert does_fit(1000, memory_bytes=1112)


def test_the_embedded_backbone_has_a_stage_of_its_own(workspace: Path) -> None:
    plan = planned(workspace, config())
    assert [stage.name for stage in plan.stages] == ["backbone", "base", "update"]
    assert plan.stages[0].num_trained == plan.num_parameters
    assert plan.tokens_per_second > 0


def test_a_folder_without_a_model(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no configuration and tokenizer"):
        planned(workspace, config(backbone={"source": str(tmp_path)}))


def test_live_bytes_by_hand() -> None:
    """A matrix of 4 kB, its square of the same size, freed; views cost nothing."""
    with LiveBytes() as live:
        x = torch.ones(32, 32)
        y = x @ x
        view = y[:4].T
        assert (live.now, live.peak) == (8192, 8192)
        del y
        assert live.now == 8192
        del view
        assert (live.now, live.peak) == (4096, 8192)


def test_what_stands_before_and_behind_is_not_counted() -> None:
    weight = torch.ones(32, 32)
    with LiveBytes([weight]) as live:
        product = weight.t() @ weight
    with LiveBytes() as all_of_it:
        weight.t()
    assert (live.peak, all_of_it.peak) == (product.nbytes, weight.nbytes)


def test_what_is_given_up_lends_nobody_its_address() -> None:
    given_up = [torch.ones(1) for _ in range(100)]
    with LiveBytes(given_up) as live:
        del given_up
        later = [torch.ones(1) for _ in range(100)]
        assert live.now == sum(tensor.nbytes for tensor in later)


def test_fake_models_keep_ties_and_gradients() -> None:
    with torch.device("meta"):
        embedding, head = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    model = torch.nn.Sequential(embedding, head)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    without_contents(model, mode)
    assert head.weight is embedding.weight
    assert head.weight.grad is not None
    with mode:
        assert model(torch.tensor([1, 2])).shape == (2, 5)
