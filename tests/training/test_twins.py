"""Versions that follow from another run's: bit for bit those that training would have made."""

from pathlib import Path
from typing import Any

import pytest

from peso.files import read_json, write_json
from peso.training.stream import run_stream
from peso.training.update_record import UPDATE_FILE, read_update
from streams import QUICK, SMALL, config, fill

SHARE, LEAD = 0.6, 0.5


def run(workspace: Path, lead: float, **overrides: Any) -> Path:
    proximal = {"share": SHARE, "lead": lead}
    return run_stream(workspace, config(**QUICK | {"method": "peso", "proximal": proximal} | overrides), resume=True)


def refuse(*_: object) -> None:
    raise AssertionError("a block is trained")


def assert_alike(ours: Path, theirs: Path) -> None:
    """Both runs hold the same versions and measured the same."""
    for block in (0, 1, 2):
        folders = [folder / "adapters" / f"block_{block}" for folder in (ours, theirs)]
        files = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in folders]
        assert files[0] == files[1]
        for file in (path for path in files[0] if path.suffix == ".safetensors"):
            assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    results = [read_json(folder / "result.json", "result") for folder in (ours, theirs)]
    for first, second in zip(*(result["blocks"] for result in results), strict=True):
        for key in ("log_likelihood", "ndcg@10", "proximal_share", "served_share"):
            assert first[key] == second[key], key


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """By lead, a run in a workspace of its own."""
    return {lead: run(fill(tmp_path_factory.mktemp("world")), lead) for lead in (0.0, LEAD)}


@pytest.mark.parametrize(("of", "wanted"), [(0.0, LEAD), (LEAD, 0.0)])
def test_another_lead_is_not_trained_again(
    trained: dict[float, Path], of: float, wanted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peso.training.stream.run_update", refuse)
    assert_alike(run(trained[of].parent.parent, wanted), trained[wanted])


def test_all_of_the_lead_ends_where_training_ended(trained: dict[float, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peso.training.stream.run_update", refuse)
    furthest = run(trained[LEAD].parent.parent, 1.0)
    assert read_update(furthest / "adapters" / "block_1").served_share == 1.0


def test_a_record_from_before_there_was_a_lead_is_of_none(
    trained: dict[float, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = fill(tmp_path / "world")
    before = run(workspace, 0.0)
    for record in before.glob(f"adapters/*/{UPDATE_FILE}"):
        facts = read_json(record, "update record")
        del facts["served_share"]
        write_json(record, facts)
    monkeypatch.setattr("peso.training.stream.run_update", refuse)
    assert_alike(run(workspace, LEAD), trained[LEAD])


def test_what_is_stored_in_fewer_bits_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes ahead from all bits of what is carried on."""
    workspace = fill(tmp_path / "world")
    few_bits = SMALL["adapter"] | {"stored_precision": "bfloat16"}
    run(workspace, 0.0, adapter=few_bits)
    monkeypatch.setattr("peso.training.stream.run_update", refuse)
    run(workspace, 0.0, adapter=few_bits, decoding={"beam_width": 11})
    with pytest.raises(AssertionError, match="a block is trained"):
        run(workspace, LEAD, adapter=few_bits)
