"""Records that lost a field, or hold something else there: each is named in a sentence, with what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peso.errors import WorkspaceError
from peso.experiments.results import list_runs, load_results
from peso.training.carrying import origins
from peso.training.exporting import export_version
from peso.training.stream import run_stream
from peso.training.update_record import read_update
from peso.training.user_lists import load_user_lists
from streams import config, fill

Damage = Callable[[Any], Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = fill(tmp_path_factory.mktemp("whole") / "world")
    run_stream(workspace, config(method="single"))
    return workspace


@pytest.fixture
def workspace(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "world")


def run_of(workspace: Path) -> Path:
    (result,) = workspace.glob("runs/*/result.json")
    return result.parent


def damaged(path: Path, damage: Damage) -> Path:
    path.write_text(json.dumps(damage(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    return path


def without(name: str) -> Damage:
    return lambda record: {key: value for key, value in record.items() if key != name}


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (without("update_id"), "update_id"),
        (without("epochs"), "epochs"),
        (lambda record: record | {"train_seconds": "1"}, "train_seconds"),
        (lambda record: record | {"strengths": [{"strength": 3.0}]}, r"strengths\.0\.selected"),
        (lambda record: [record], "update_id"),
    ],
)
def test_an_update(workspace: Path, damage: Damage, field: str) -> None:
    path = damaged(run_of(workspace) / "adapters" / "block_1" / "update.json", damage)
    sentence = rf"update record: {path} has no valid '{field}'; it is damaged, restore it, or remove .*block_1 to train"
    with pytest.raises(WorkspaceError, match=sentence):
        read_update(path.parent)
    with pytest.raises(WorkspaceError, match=sentence):
        run_stream(workspace, config(method="single", decoding={"beam_width": 11}))


def test_an_update_that_says_more(workspace: Path) -> None:
    path = run_of(workspace) / "adapters" / "block_1" / "update.json"
    before = read_update(path.parent)
    assert read_update(damaged(path, lambda record: record | {"more": 1}).parent) == before


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        (without("blocks"), "blocks"),
        (lambda record: record | {"blocks": {}}, "blocks"),
        (lambda record: record | {"blocks": [{"memory": {}}]}, r"blocks\.0\.memory\.lag_weights"),
    ],
)
def test_a_result_under_lists(workspace: Path, damage: Damage, field: str) -> None:
    damaged(run_of(workspace) / "result.json", damage)
    with pytest.raises(WorkspaceError, match=rf"result\.json has no valid '{field}'; it is damaged"):
        load_user_lists(workspace, 5)


def test_a_result_in_a_table(workspace: Path) -> None:
    damaged(run_of(workspace) / "result.json", lambda record: record | {"blocks": [{"block": 1}]})
    for read in (list_runs, load_results):
        with pytest.raises(WorkspaceError, match=r"result\.json has no valid 'blocks\.0\.num_targets'"):
            read(workspace)


def test_where_codes_come_from(tmp_path: Path) -> None:
    assert origins(tmp_path) == {}
    path = tmp_path / "data" / "semantic_ids" / "encoding.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"extends": {"semantic_ids": "a"}, "refresh": {"semantic_ids_before": "b"}}')
    assert origins(tmp_path) == {"extends": "a", "refresh": "b"}
    for text, field in (
        ('{"extends": {}}', r"extends\.semantic_ids"),
        ('{"refresh": []}', r"refresh\."),
        ("[]", "ext"),
    ):
        path.write_text(text)
        with pytest.raises(WorkspaceError, match=rf"record of the encoding: .* has no valid '{field}"):
            origins(tmp_path)


def test_a_base(workspace: Path) -> None:
    (record,) = workspace.glob("bases/*/base.json")
    damaged(record, lambda base: base | {"epochs": [{}]})
    with pytest.raises(WorkspaceError, match=r"base\.json has no valid 'epochs\.0\.stage'; .* train the base again"):
        run_stream(workspace, config(method="frozen", adapter={"r": 3}))


def test_an_adapter(workspace: Path, tmp_path: Path) -> None:
    damaged(run_of(workspace) / "adapters" / "block_2" / "adapter_config.json", without("r"))
    with pytest.raises(WorkspaceError, match=r"adapter_config\.json has no valid 'r'"):
        export_version(workspace, tmp_path / "out", "vllm")


def test_a_base_that_is_gone(workspace: Path) -> None:
    (record,) = workspace.glob("bases/*/base.json")
    shutil.rmtree(record.parent)
    with pytest.raises(
        WorkspaceError, match=rf"{record.parent} does not exist; .* by another version .*: train the run"
    ):
        load_user_lists(workspace, 5)
