"""`peso items` as a stranger types it."""

from pathlib import Path

import numpy as np
import pytest

from commands import assert_one_sentence, output_of, peso


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items") / "world"
    output_of("simulate", "--workspace", folder, "--users", "60", "--items", "150", "--blocks", "3")
    return folder


def test_encode_and_report(workspace: Path) -> None:
    record = output_of("items", "encode", "-w", workspace, "--levels", "3", "--codes", "16")
    assert record["level_sizes"] == [16, 16, 16]
    assert (record["encoder"], record["quantizer"], record["num_items"]) == ("tfidf", "rq-kmeans", 150)
    facts = output_of("items", "report", "-w", workspace)
    assert Path(facts["report"]).stat().st_size > 10_000
    assert facts["levels"][-1]["num_prefixes"] == 150
    assert facts["record"] == record
    assert "level" in peso("items", "report", "-w", workspace).stdout
    done = peso("items", "encode", "-w", workspace, "--levels", "3", "--codes", "8", "--encoder", "collaborative")
    assert done.returncode == 0, done.stderr
    assert "150 items have semantic IDs of 3 levels" in done.stdout


def test_wrong_requests(workspace: Path, tmp_path: Path) -> None:
    encode = ("items", "encode", "-w", workspace)
    before = (workspace / "data" / "semantic_ids" / "codes.parquet").read_bytes()
    assert_one_sentence(peso(*encode, "--encoder", "bert"), "no encoder 'bert'", "tfidf, sentences")
    assert_one_sentence(peso(*encode, "--quantizer", "k"), "no quantizer 'k'", "rq-kmeans")
    assert_one_sentence(peso(*encode, "--levels", "0"), "--levels 0", "1 to 16 levels")
    assert_one_sentence(peso(*encode, "--codes", "1"), "--codes 1", "at least 2 codes")
    assert_one_sentence(peso(*encode, "--levels", "1", "--codes", "100"), "cannot have distinct codes of 100")
    assert_one_sentence(peso(*encode, "--encoder", "sentences"), "needs --model")
    np.save(tmp_path / "few.npy", np.zeros((3, 2)))
    wrong = ("--encoder", "precomputed", "--vectors", tmp_path / "few.npy")
    assert_one_sentence(peso(*encode, *wrong), "3 vectors, the workspace 150 items")
    assert_one_sentence(peso("items", "encode", "-w", tmp_path / "no"), "holds no data")
    assert_one_sentence(peso("items", "report", "-w", tmp_path / "no"), "holds no data")
    assert not (tmp_path / "no").exists()
    assert (workspace / "data" / "semantic_ids" / "codes.parquet").read_bytes() == before
    (workspace / "runs" / "single-seed0-12345678").mkdir(parents=True)
    assert_one_sentence(peso(*encode), "holds models", "new workspace")
