"""What `peso export --format peft` writes, `peso import-adapter` reads: the same version in another workspace."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from language_models import write_language_model
from peso.cli.main import app
from peso.config import RunConfig, dump_config
from peso.data.dataset import Dataset
from peso.data.storage import save_dataset
from peso.errors import ConfigError, DataError
from peso.semantic_ids.catalogue import build_semantic_ids
from peso.training.exporting import export_version
from peso.training.importing import import_adapter
from peso.training.recommending import recommend_for_user
from peso.training.stream import run_stream
from streams import config
from worlds import fill_workspace, tiny_dataset

EMBEDDED = "embedded"
VARIANTS: dict[str, tuple[str, torch.dtype, dict[str, Any]]] = {
    "untied": ("llama", torch.float32, {}),
    "tied": ("smollm", torch.float32, {}),
    "transposed": ("gpt2", torch.float32, {"target_modules": ("all-linear",)}),
    "whole tables": ("llama", torch.float32, {"token_rows": "all"}),
    "past adapters": ("llama", torch.float32, {}),
    "embedded": (EMBEDDED, torch.float32, {}),
    "bfloat16": ("llama", torch.bfloat16, {"stored_precision": "bfloat16"}),
    "bfloat16, tied": ("qwen3", torch.bfloat16, {"stored_precision": "bfloat16"}),
    "bfloat16, whole tables": ("smollm", torch.bfloat16, {"token_rows": "all", "stored_precision": "bfloat16"}),
    "version in bfloat16": ("llama", torch.float32, {"stored_precision": "bfloat16"}),
}


def config_of(source: str, adapter: dict[str, Any], **overrides: Any) -> RunConfig:
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "epochs": 1}
    training = {"base_epochs": 1, "epochs": 1, "learning_rate": 1e-2, "token_rows_learning_rate": 1e-2}
    return config(
        backbone=(shape if source == EMBEDDED else {}) | {"source": source},
        adapter={"r": 2, "lora_alpha": 4} | adapter, training=training | overrides.pop("training", {}),
        evaluation={"next_block": "off"}, max_history=6, memory={"use": False}, **overrides,
    )  # fmt: skip


def exported(folder: Path, variant: str) -> tuple[Path, str, Path]:
    """A run in the workspace `ours`, the backbone to name, and the adapter of its last version, exported."""
    family, dtype, adapter = VARIANTS[variant]
    source = family if family == EMBEDDED else str(write_language_model(folder / "model", family, dtype))
    fill_workspace(folder / "ours", tiny_dataset())
    method = "sum_lora" if variant == "past adapters" else "single"
    run = run_stream(folder / "ours", config_of(source, adapter, method=method))
    folders = export_version(folder / "ours", folder / "out", "peft", run.name)
    moved = folder / "elsewhere"
    shutil.move(folder / "out", moved)  # another machine has other paths
    return run, source if family != EMBEDDED else str(moved / "backbone"), moved / Path(folders["adapter"]).name


def started_from(workspace: Path, source: str, adapter: dict[str, Any], name: str) -> Path:
    """A run whose v_0 is what was imported, never updated."""
    chosen = config_of(source, adapter | {"start": name}, method="frozen", training={"base_epochs": 0})
    return run_stream(workspace, chosen)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_exported_version_is_imported_bit_for_bit(tmp_path: Path, variant: str) -> None:
    run, source, checkpoint = exported(tmp_path, variant)
    stored = load_file(run / "adapters" / "block_2" / "adapter_model.safetensors")
    facts = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    adapter = VARIANTS[variant][2] | {"r": facts["r"], "lora_alpha": facts["lora_alpha"]}
    other = tmp_path / "theirs"
    fill_workspace(other, tiny_dataset())
    imported = import_adapter(other, config_of(source, adapter), checkpoint, 0)
    assert imported.num_codes_missing == imported.largest_change_left_out == 0
    assert imported.num_token_rows == (0 if "whole" in variant else imported.num_codes)
    found = load_file(other / "imported" / imported.name / "adapter_model.safetensors")
    assert_equal({name: tensor.float() for name, tensor in stored.items()}, found)

    again = started_from(other, source, adapter, imported.name)
    assert_equal(stored, load_file(again / "adapters" / "block_2" / "adapter_model.safetensors"))
    for user in ("user 0", "user 7"):
        ours, theirs = (recommend_for_user(tmp_path / where, user, 5) for where in ("ours", "theirs"))
        assert len(ours["recommendations"]) == 5
        assert ours["recommendations"] == theirs["recommendations"]


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert theirs[name].dtype == tensor.dtype and torch.equal(theirs[name], tensor), name


def test_the_command_counts_rows(tmp_path: Path) -> None:
    _, source, checkpoint = exported(tmp_path, "untied")
    (tmp_path / "config.toml").write_text(dump_config(config_of(source, {})), encoding="utf-8")
    command = ["import-adapter", str(checkpoint), "-w", str(tmp_path / "ours")]
    done = CliRunner().invoke(app, [*command, "--config", str(tmp_path / "config.toml")])
    assert done.exit_code == 0, done.output
    assert "rank 2 on 14 layers, 15 rows of embed_tokens and lm_head; 15 codes known, 0 not." in done.output


def other_codes(dataset: Dataset, level_sizes: tuple[int, ...], workspace: Path) -> Path:
    codes = np.arange(dataset.num_items)[:, None] // np.cumprod([1, *level_sizes[:-1]]) % level_sizes
    save_dataset(dataset, workspace / "data")
    build_semantic_ids(dataset, codes, level_sizes).save(workspace / "data" / "semantic_ids", dataset.item_ids)
    return workspace


def test_an_export_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    _, source, checkpoint = exported(tmp_path, "untied")

    def refused(kind: type[Exception], match: str, workspace: Path = tmp_path / "ours", model: str = source) -> None:
        with pytest.raises(kind, match=match):
            import_adapter(workspace, config_of(model, {}), checkpoint, 0)

    fewer = other_codes(tiny_dataset(), (4, 5, 3), tmp_path / "fewer")
    refused(DataError, r"trained 15 rows of (embed_tokens|lm_head), 3 of them of no code.*such as '<c_3>'", fewer)
    deeper = other_codes(tiny_dataset(), (4, 5, 6, 2), tmp_path / "deeper")
    refused(DataError, r"none of this workspace's codes of level 4, such as <d_0>", deeper)
    same_shape = write_language_model(tmp_path / "other", "llama", seed=5)
    refused(ConfigError, "is not the checkpoint's; name the backbone", model=str(same_shape))
    (checkpoint.parent / "backbone" / "model.safetensors").unlink()  # only the adapter and its tokenizer came along
    wider = write_language_model(tmp_path / "wider", "llama", shape={"hidden_size": 64})
    refused(ConfigError, r"goes from 64 to 64 features, the checkpoint's from 32 to 32", model=str(wider))

    weights = checkpoint / "adapter_model.safetensors"
    state = load_file(weights)
    cut = {name: tensor[:-1].clone() if "token_adapter" in name else tensor for name, tensor in state.items()}
    save_file(cut, weights)
    refused(DataError, r"trainable_token_indices do not name the 14 tokens whose rows")
    save_file(state, weights)
    facts = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    facts["trainable_token_indices"]["lm_head"][0] = 9999
    (checkpoint / "adapter_config.json").write_text(json.dumps(facts), encoding="utf-8")
    refused(DataError, r"15 rows of lm_head, 1 of them of no code of this workspace, such as 'token 9999'")
    shutil.rmtree(checkpoint.parent / "backbone")
    refused(DataError, "holds no tokenizer")
