"""Frozen states: whole or refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from peso.errors import WorkspaceError
from peso.semantic_ids.frozen import FrozenState, load_frozen


def state() -> FrozenState:
    return FrozenState({"kind": "x", "n": 3}, {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T})


def test_round_trip(tmp_path: Path) -> None:
    state().save(tmp_path / "deep", "part")
    loaded = load_frozen(tmp_path / "deep", "part")
    assert (loaded.kind, loaded.facts) == ("x", {"kind": "x", "n": 3})
    assert loaded.tensors["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert loaded.fingerprint == state().fingerprint
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["part.json", "part.safetensors"]


def test_the_fingerprint_sees_every_part() -> None:
    others = [
        FrozenState({"kind": "x", "n": 4}, state().tensors),
        FrozenState(state().facts, {"b": state().tensors["a"]}),
        FrozenState(state().facts, {"a": state().tensors["a"].astype(np.float64)}),
        FrozenState(state().facts, {"a": state().tensors["a"].reshape(2, 3)}),
        FrozenState(state().facts, {"a": state().tensors["a"] + 1}),
        FrozenState(state().facts),
    ]
    assert len({other.fingerprint for other in [*others, state()]}) == 7


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "part.json").unlink(), "does not exist"),
        (lambda folder: (folder / "part.json").write_text("{}"), "no valid 'fingerprint'"),
        (lambda folder: (folder / "part.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "part.safetensors").write_bytes(b"ab"), "cannot be read"),
        (lambda folder: FrozenState({"kind": "x"}, {"a": np.zeros(2)}).save(folder, "o"), None),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: Callable[[Path], object], message: str | None) -> None:
    state().save(tmp_path, "part")
    damage(tmp_path)
    if message is None:
        (tmp_path / "o.safetensors").replace(tmp_path / "part.safetensors")
        message = "wrong fingerprint"
    with pytest.raises(WorkspaceError, match=message):
        load_frozen(tmp_path, "part")
