"""A version of a run in the layouts of other programs: PEFT, plain `transformers`, vLLM."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from peso.config import make_config
from peso.data.storage import read_facts
from peso.errors import WorkspaceError
from peso.files import atomic_directory, sha256_of
from peso.lm.adapters import stored_token_rows
from peso.lm.backbone import load_tokenizer, save_backbone
from peso.lm.merging import merge_adapter, merge_token_rows
from peso.lm.quantisation import is_quantised
from peso.training.base import BACKBONE, Base, load_state, read_base
from peso.training.finished import finished_run
from peso.training.materials import Materials, load_materials
from peso.types import ExportFormat

_RANKS_OF_VLLM = (8, 16, 32, 64, 128, 256, 320, 512)
"""What its `--max-lora-rank` may be."""

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def export_version(
    workspace: Path, output: Path, form: ExportFormat, run_id: str | None = None, block: int | None = None
) -> dict[str, str]:
    """Writes one version of a run for another program; what it computes stays the same.

    "peft" writes the backbone and the adapter on it; "merged" one model without an adapter; "vllm", which takes no
    token rows in adapters, a snapshot of the backbone with the version's rows in it and an adapter of A and B alone.
    Versions with equal rows share a snapshot. Weights keep the backbone's type, so that one in bfloat16 rounds what is
    merged into it; adapters keep the numbers they are stored in (`adapter.stored_precision`).

    Args:
        workspace: a folder with at least one finished run.
        output: what is written here must not exist yet, but for a shared snapshot.
        form: the layout.
        run_id: which run; the one finished last by default.
        block: the version after this block; the last by default.

    Returns:
        The folders, by what they hold: `model` alone, or `backbone` and `adapter`.

    Raises:
        WorkspaceError: there is no such version, a target exists, a whole backbone (method "full") is not "merged", one
            in four bits is to be, or vLLM takes no adapters of the rank.
    """
    folder = finished_run(workspace, run_id)
    materials = load_materials(workspace, make_config(folder / "config.toml"))
    last = materials.dataset.num_blocks - 1
    block = last if block is None else block
    if not 0 <= block <= last:
        raise WorkspaceError(f"run {folder.name} has no block {block}; choose one of 0 to {last}.")
    base, version = read_base(materials, workspace / "bases"), folder / "adapters" / f"block_{block}"
    if (version / BACKBONE).exists() and form != "merged":
        raise WorkspaceError(f"versions of run {folder.name} are whole backbones; export them with --format merged.")
    if form != "peft" and is_quantised(AutoConfig.from_pretrained(base.folder / BACKBONE)):
        raise WorkspaceError(
            f"the backbone of run {folder.name} is stored in four bits, into which nothing can be merged as it is; "
            "export with --format peft."
        )
    if form == "merged":
        return {"model": str(_write_model(materials, base, version, _free(output)))}
    name = f"{folder.name}-block_{block}"
    if form == "peft":
        backbone, adapter = _free(output / BACKBONE), _free(output / name)
        with atomic_directory(backbone) as temporary:
            shutil.copytree(base.folder / BACKBONE, temporary, dirs_exist_ok=True)
    else:
        _rank_for_vllm(version)  # before anything is written
        adapter = _free(output / name)
        backbone = _write_snapshot(materials, base, version, output)
    _write_adapter(version, adapter, backbone, with_rows=form == "peft")
    return {"backbone": str(backbone), "adapter": str(adapter)}


def serving_command(folders: dict[str, str]) -> str:
    """How vLLM serves what was exported for it; the version's model is called `version`.

    Args:
        folders: from `export_version`, "vllm".
    """
    return (
        f"vllm serve {shlex.quote(folders['backbone'])} --enable-lora "
        f"--max-lora-rank {_rank_for_vllm(Path(folders['adapter']))} "
        f"--lora-modules version={shlex.quote(folders['adapter'])}"
    )


def _rank_for_vllm(adapter: Path) -> int:
    rank: int = _read_config(adapter)["r"]
    allowed = next((most for most in _RANKS_OF_VLLM if most >= rank), None)
    if allowed is None:
        raise WorkspaceError(
            f"vLLM takes adapters up to rank {_RANKS_OF_VLLM[-1]}, not {rank}; export with --format merged."
        )
    return allowed


def _read_config(adapter: Path) -> dict[str, Any]:
    cure = "restore it, or export another version by --block"
    return read_facts(adapter / _CONFIG, "adapter configuration", {"r": int}, cure)


def _free(target: Path) -> Path:
    if target.exists():
        raise WorkspaceError(f"{target} exists already; give another --output, or remove it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _write_model(materials: Materials, base: Base, version: Path, output: Path) -> Path:
    model, _ = load_state(materials, base, version)
    _save(merge_adapter(model) if isinstance(model, PeftModel) else model, base, output)
    return output


def _write_snapshot(materials: Materials, base: Base, version: Path, output: Path) -> Path:
    rows = stored_token_rows(version)
    contents = [values.numpy().tobytes() for _, values in sorted(rows.items())]
    folder = output / f"backbone-{sha256_of(base.id.encode(), *contents)[:16]}"
    if not folder.exists():
        model, _ = load_state(materials, base, version)
        assert isinstance(model, PeftModel)
        _save(merge_token_rows(model), base, folder)
    return folder


def _save(model: PreTrainedModel, base: Base, folder: Path) -> None:
    kind = AutoConfig.from_pretrained(base.folder / BACKBONE).dtype
    with atomic_directory(folder) as temporary:
        nn.Module.to(model, kind)
        save_backbone(model, load_tokenizer(base.folder / BACKBONE), temporary)


def _write_adapter(version: Path, folder: Path, backbone: Path, with_rows: bool) -> None:
    config = _read_config(version)
    config["base_model_name_or_path"] = str(backbone.resolve())
    state = load_file(version / _WEIGHTS)
    if not with_rows:
        config |= {"trainable_token_indices": None, "modules_to_save": None}
        state = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    with atomic_directory(folder) as temporary:
        save_file(state, temporary / _WEIGHTS, metadata={"format": "pt"})
        (temporary / _CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
