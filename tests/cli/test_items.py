"""`peso items` as a stranger types it."""

from pathlib import Path

import numpy as np
import pytest

from commands import assert_one_sentence, output_of, peso
from worlds import TINY_BACKBONE


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items") / "world"
    output_of("simulate", "--workspace", folder, "--users", "60", "--items", "150", "--blocks", "3")
    return folder


def test_encode_and_report(workspace: Path) -> None:
    record = output_of("items", "encode", "-w", workspace, "--levels", "3", "--codes", "16")
    assert record["level_sizes"] == [16, 16, 16]
    assert (record["encoder"], record["quantizer"], record["num_items"]) == ("tfidf", "rq-kmeans", 150)
    done = peso("items", "report", "-w", workspace)
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.splitlines()[-1])
    assert page.stat().st_size > 10_000
    assert done.stdout.splitlines()[3].split()[3] == "150"  # prefixes of the last level


CONFIG = (
    TINY_BACKBONE
    + """
[training]
epochs = 1
"""
)


def test_added_items_are_recommended(tmp_path: Path) -> None:
    workspace = tmp_path / "world"
    output_of("simulate", "--workspace", workspace, "--users", "30", "--items", "40", "--blocks", "2")
    output_of("items", "encode", "-w", workspace, "--levels", "2", "--codes", "16")
    (tmp_path / "small.toml").write_text(CONFIG)
    result = output_of("run", "-w", workspace, "--method", "frozen", "--config", tmp_path / "small.toml")
    ask = ("recommend", "-w", workspace, "--user", "u00003", "-k", "60")
    before = output_of(*ask)["recommendations"]
    (tmp_path / "new.csv").write_text("item_id,title\nn1,Northern Jazz Ballads\nn2,Desert Blues Suites\n")
    facts = output_of("items", "add", tmp_path / "new.csv", "-w", workspace)
    assert (facts["num_added"], facts["num_items"]) == (2, 42)
    answer = output_of(*ask)
    assert answer["run_id"] == result["run_id"]
    named = {item["item_id"]: item for item in answer["recommendations"]}
    assert set(named) == {item["item_id"] for item in before} | {"n1", "n2"}
    assert named["n2"]["title"] == "Desert Blues Suites"
    assert_one_sentence(peso("items", "add", tmp_path / "new.csv", "-w", workspace), "'n1' has a code")
    assert_one_sentence(peso("items", "encode", "-w", workspace), "holds models", "new workspace")


def test_a_run_on_no_backbone_leaves_nothing(tmp_path: Path) -> None:
    workspace, config = tmp_path / "world", tmp_path / "no-model.toml"
    output_of("simulate", "--workspace", workspace, "--users", "30", "--items", "40", "--blocks", "2")
    config.write_text(f"[backbone]\nsource = {str(tmp_path)!r}\n")
    failed = peso("run", "-w", workspace, "--config", config)
    assert_one_sentence(failed, "backbone.source", "could not be loaded as a causal language model")
    kept = [path.name for folder in ("bases", "runs") for path in (workspace / folder).iterdir()]
    assert all(name.endswith(".lock") for name in kept), kept
    assert output_of("items", "encode", "-w", workspace, "--levels", "2", "--codes", "16")["num_items"] == 40


def test_wrong_requests(workspace: Path, tmp_path: Path) -> None:
    encode = ("items", "encode", "-w", workspace)
    assert_one_sentence(peso(*encode, "--quantizer", "k"), "no quantizer 'k'", "rq-kmeans")
    assert_one_sentence(peso(*encode, "--levels", "0"), "--levels 0", "1 to 16 levels")
    np.save(tmp_path / "few.npy", np.zeros((3, 2)))
    wrong = ("--encoder", "precomputed", "--vectors", tmp_path / "few.npy")
    assert_one_sentence(peso(*encode, *wrong), "3 vectors, the workspace 150 items")
    assert_one_sentence(peso("items", "report", "-w", tmp_path / "no"), "holds no data")
    assert not (tmp_path / "no").exists()
