"""Exported versions compute what the version computes, in programs that know nothing of peso."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from language_models import write_language_model
from peso.config import RunConfig, make_config
from peso.errors import WorkspaceError
from peso.training import exporting
from peso.training.base import load_state, read_base
from peso.training.exporting import export_version, serving_command
from peso.training.materials import load_materials
from peso.training.stream import run_stream
from peso.types import ExportFormat
from streams import config
from worlds import fill_workspace, tiny_dataset

pytestmark = pytest.mark.filterwarnings("ignore:.*tie_word_embeddings=True.*:UserWarning")  # of PEFT, as it loads

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "untied": ("llama", {}),
    "tied": ("qwen3", {}),
    "transposed": ("gpt2", {}),
    "past adapters": ("smollm", {"method": "sum_lora"}),
    "whole tables, tied": ("smollm", {"adapter": {"token_rows": "all"}}),
    "whole tables, untied": ("llama", {"adapter": {"token_rows": "all"}}),
    "whole backbone": ("smollm", {"method": "full"}),
    "stored in bfloat16": ("llama", {"adapter": {"stored_precision": "bfloat16"}}),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    fill_workspace(folder, tiny_dataset())
    return folder


def config_of(variant: str, folder: Path, dtype: torch.dtype = torch.float32, **adapter_overrides: Any) -> RunConfig:
    family, overrides = VARIANTS[variant]
    source = folder / f"{family}-{dtype}".replace("torch.", "")
    if not source.exists():
        write_language_model(source, family, dtype)
    adapter = {"r": 2, "lora_alpha": 4, "target_modules": ("all-linear",)} | overrides.get("adapter", {})
    adapter |= adapter_overrides
    rates = {"epochs": 1, "base_learning_rate": 1e-2, "learning_rate": 1e-2, "token_rows_learning_rate": 1e-2}
    return config(
        backbone={"source": str(source)}, training=rates, evaluation={"next_block": "off"}, max_history=6,
        method=overrides.get("method", "single"), adapter=adapter,
    )  # fmt: skip


@pytest.fixture(scope="module", params=VARIANTS)
def run(request: pytest.FixtureRequest, workspace: Path) -> Path:
    return run_stream(workspace, config_of(request.param, workspace / "models"), resume=True)


def logits_of(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(input_ids=tokens).logits
    return logits


def logits_before(workspace: Path, run: Path, block: int) -> tuple[Tensor, Tensor]:
    materials = load_materials(workspace, make_config(run / "config.toml"))
    base = read_base(materials, workspace / "bases")
    model, reader = load_state(materials, base, run / "adapters" / f"block_{block}")
    tokens = torch.from_numpy(reader.builder.prompt(np.array([3, 5, 8])))[None]
    return tokens, logits_of(model, tokens)


@pytest.mark.parametrize("form", ["peft", "merged", "vllm"])
@pytest.mark.parametrize("block", [0, 2])
def test_logits_stay(workspace: Path, run: Path, form: ExportFormat, block: int, tmp_path: Path) -> None:
    is_whole = (run / "adapters" / "block_2" / "backbone").exists()
    if is_whole and block == 2 and form != "merged":
        with pytest.raises(WorkspaceError, match="whole backbones; export them with --format merged"):
            export_version(workspace, tmp_path / "out", form, run.name, block)
        return
    tokens, before = logits_before(workspace, run, block)
    folders = export_version(workspace, tmp_path / "out", form, run.name, block)
    assert AutoTokenizer.from_pretrained(folders.get("model", folders.get("backbone"))).tokenize("<a_1>") == ["<a_1>"]
    after: torch.nn.Module
    if form == "merged":
        after = AutoModelForCausalLM.from_pretrained(folders["model"])
    else:
        plain = AutoModelForCausalLM.from_pretrained(folders["backbone"])
        assert (logits_of(plain, tokens) - before).abs().max() > 1e-3
        after = PeftModel.from_pretrained(plain, folders["adapter"])
    torch.testing.assert_close(logits_of(after, tokens), before, rtol=1e-4, atol=1e-4)


def test_vllm_gets_a_and_b_alone_and_shares_snapshots(workspace: Path, tmp_path: Path) -> None:
    """Its loader knows `lora_A` and `lora_B` of linear layers; a snapshot is written once for equal rows."""
    run = run_stream(workspace, config_of("tied", workspace / "models"), resume=True)
    first, second = (export_version(workspace, tmp_path, "vllm", run.name, block) for block in (1, 2))
    adapter = Path(second["adapter"])
    assert all(
        ".lora_A.weight" in key or ".lora_B.weight" in key for key in load_file(adapter / "adapter_model.safetensors")
    )
    facts = json.loads((adapter / "adapter_config.json").read_text())
    assert facts["trainable_token_indices"] is None and facts["modules_to_save"] is None
    assert facts["base_model_name_or_path"] == str(Path(second["backbone"]).resolve())
    assert serving_command(second).endswith(
        f"{second['backbone']} --enable-lora --max-lora-rank 8 --lora-modules version={second['adapter']}"
    )
    assert first["backbone"] != second["backbone"]  # token rows train on every block
    frozen = run_stream(workspace, config_of("tied", workspace / "models").model_copy(update={"method": "frozen"}))
    third, fourth = (export_version(workspace, tmp_path, "vllm", frozen.name, block) for block in (1, 2))
    assert third["backbone"] == fourth["backbone"]
    assert third["adapter"] != fourth["adapter"]


def test_others_may_read_what_was_exported(workspace: Path, tmp_path: Path) -> None:
    """A server often runs as another user, and safetensors writes for its own alone."""
    run = run_stream(workspace, config_of("tied", workspace / "models"), resume=True)
    (tmp_path / "new").touch()
    expected = (tmp_path / "new").stat().st_mode
    for folder in export_version(workspace, tmp_path / "out", "vllm", run.name).values():
        assert {file.stat().st_mode for file in Path(folder).iterdir()} == {expected}


def test_vllm_takes_no_rank_above_its_largest(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_stream(workspace, config_of("tied", workspace / "models"), resume=True)
    monkeypatch.setattr(exporting, "_RANKS_OF_VLLM", (1,))
    with pytest.raises(WorkspaceError, match="up to rank 1, not 2; export with --format merged"):
        export_version(workspace, tmp_path / "out", "vllm", run.name)
    assert not (tmp_path / "out").exists()


def test_wrong_exports(workspace: Path, tmp_path: Path) -> None:
    run = run_stream(workspace, config_of("tied", workspace / "models"), resume=True)
    with pytest.raises(WorkspaceError, match="has no block 3; choose one of 0 to 2"):
        export_version(workspace, tmp_path / "out", "merged", run.name, 3)
    export_version(workspace, tmp_path / "out", "merged", run.name)
    with pytest.raises(WorkspaceError, match="exists already; give another --output"):
        export_version(workspace, tmp_path / "out", "merged", run.name)
    with pytest.raises(WorkspaceError, match="not a finished run"):
        export_version(workspace, tmp_path / "other", "merged", "single-seed9-00000000")
    assert not (tmp_path / "other").exists()


def test_bfloat16_is_kept(workspace: Path, tmp_path: Path) -> None:
    """A narrow backbone stays narrow; what is merged is rounded to it once."""
    source = write_language_model(tmp_path / "model", "smollm", torch.bfloat16)
    chosen = config_of("tied", workspace / "models").model_copy(deep=True)
    run = run_stream(
        workspace, chosen.model_copy(update={"backbone": chosen.backbone.model_copy(update={"source": str(source)})})
    )
    tokens, before = logits_before(workspace, run, 2)
    folders = export_version(workspace, tmp_path / "out", "merged", run.name)
    after = AutoModelForCausalLM.from_pretrained(folders["model"])
    assert after.dtype == torch.bfloat16
    torch.testing.assert_close(logits_of(after, tokens).float(), before.float(), rtol=0.1, atol=0.1)


NARROW_VARIANTS = ("untied", "tied", "transposed", "past adapters", "whole tables, tied", "whole tables, untied")


@pytest.mark.parametrize("variant", NARROW_VARIANTS)
def test_a_version_and_a_backbone_in_bfloat16(workspace: Path, tmp_path: Path, variant: str) -> None:
    """Nothing is rounded but what is merged, once; whole tables, float32 in peso, act in the backbone's type."""
    chosen = config_of(variant, workspace / "models", torch.bfloat16, stored_precision="bfloat16")
    run = run_stream(workspace, chosen, resume=True)
    tokens, before = logits_before(workspace, run, 2)
    stored = load_file(run / "adapters" / "block_2" / "adapter_model.safetensors")
    exported = {form: export_version(workspace, tmp_path / form, form, run.name) for form in get_args(ExportFormat)}

    for form in ("peft", "vllm"):
        plain = AutoModelForCausalLM.from_pretrained(exported[form]["backbone"])
        assert plain.dtype == torch.bfloat16
        adapter = load_file(Path(exported[form]["adapter"]) / "adapter_model.safetensors")
        kept = stored if form == "peft" else {name: one for name, one in stored.items() if ".lora_" in name}
        assert adapter.keys() == kept.keys()
        assert all(one.dtype == torch.bfloat16 and torch.equal(one, kept[name]) for name, one in adapter.items())
        after = logits_of(PeftModel.from_pretrained(plain, exported[form]["adapter"]), tokens)
        if chosen.adapter.token_rows == "codes":
            assert torch.equal(after, before)
        else:
            torch.testing.assert_close(after.float(), before, rtol=2**-8, atol=2**-8)

    merged = AutoModelForCausalLM.from_pretrained(exported["merged"]["model"])
    assert merged.dtype == torch.bfloat16
    snapshot = AutoModelForCausalLM.from_pretrained(exported["vllm"]["backbone"]).state_dict()
    changed = 0
    for name, weight in merged.state_dict().items():
        a, b = (stored.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{key}.weight") for key in "AB")
        expected = snapshot[name]
        if a is not None and b is not None:
            update = 2.0 * (b.float() @ a.float())  # lora_alpha / r
            expected = (expected.float() + (update.T if variant == "transposed" else update)).bfloat16()
            changed += 1
        torch.testing.assert_close(weight, expected, rtol=2**-7, atol=0)  # a tie may fall either way
        assert (weight != expected).float().mean() < 1e-2
    assert changed == sum(".lora_A." in name for name in stored)
    torch.testing.assert_close(logits_of(merged, tokens).float(), before.float(), rtol=0.05, atol=0.1)
