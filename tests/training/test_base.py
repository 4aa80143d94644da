"""Bases: what of one is reused by another."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peso.lm.backbone import load_weights
from peso.training.base import Base
from peso.training.base_training import prepare_base
from peso.training.materials import load_materials
from streams import config, fill


def base_of(workspace: Path, bases: Path, **overrides: object) -> Base:
    return prepare_base(load_materials(workspace, config(**overrides)), bases)


def adapter_of(base: Base) -> dict[str, torch.Tensor]:
    return load_file(base.folder / "adapter" / "adapter_model.safetensors")


def test_another_adapter_takes_the_trained_backbone(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "world", num_users=30)
    other = {"adapter": {"r": 4, "lora_alpha": 8}}
    first = base_of(workspace, tmp_path / "shared")
    reusing = base_of(workspace, tmp_path / "shared", **other)
    alone = base_of(workspace, tmp_path / "alone", **other)

    assert reusing.id == alone.id != first.id
    assert not reusing.was_reused
    backbones = [load_weights(base.folder / "backbone").state_dict() for base in (first, reusing, alone)]
    for name, values in backbones[0].items():
        assert torch.equal(values, backbones[1][name]), name
        assert torch.equal(values, backbones[2][name]), name
    for name, values in adapter_of(alone).items():
        assert torch.equal(values, adapter_of(reusing)[name]), name
    # What was trained once is logged in both, with the time it took then.
    trained = [epoch for epoch in first.epochs if epoch["stage"] == "backbone"]
    assert trained == [epoch for epoch in reusing.epochs if epoch["stage"] == "backbone"]
    assert reusing.seconds >= sum(epoch["seconds"] for epoch in trained)


def test_what_another_process_writes_beside_it_stays(tmp_path: Path) -> None:
    workspace, bases = fill(tmp_path / "world", num_users=20), tmp_path / "bases"
    identity = load_materials(workspace, config()).base_id
    for name in ("0123456789abcdef", identity):
        (bases / f".tmp-{name}-1-aaaaaaaa").mkdir(parents=True)
    base_of(workspace, bases)
    assert [path.name for path in bases.glob(".tmp-*")] == [".tmp-0123456789abcdef-1-aaaaaaaa"]


@pytest.mark.parametrize("overrides", [{"seed": 1}, {"backbone": {"epochs": 1}}, {"max_history": 5}])
def test_another_backbone_is_trained(tmp_path: Path, overrides: dict[str, object]) -> None:
    workspace = fill(tmp_path / "world", num_users=20)
    small = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "epochs": 2}
    if "backbone" in overrides:
        overrides = {"backbone": small | {"epochs": 1}}
    materials = [load_materials(workspace, config(**one)) for one in ({}, overrides)]
    assert materials[0].backbone_id != materials[1].backbone_id
