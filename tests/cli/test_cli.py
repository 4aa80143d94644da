"""The command line as a stranger types it: results on stdout, one sentence and exit code 2 for wrong input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import assert_one_sentence, output_of, peso
from peso.config import DEFAULT_STRENGTHS
from worlds import TINY_BACKBONE

CONFIG = (
    TINY_BACKBONE
    + """
[training]
epochs = 1
[decoding]
beam_width = 10
"""
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "world"
    facts = output_of("simulate", "--workspace", folder, "--users", "60", "--items", "150", "--blocks", "3")
    assert facts["num_items"] == 150
    assert len(facts["blocks"]) == 3
    (folder / "small.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def run_id(workspace: Path) -> str:
    result = output_of("run", "--workspace", workspace, "--method", "peso", "--config", workspace / "small.toml")
    assert result["method"] == "peso"
    return str(result["run_id"])


def test_the_main_job(workspace: Path, run_id: str) -> None:
    table = output_of("runs", "--workspace", workspace)
    assert [(row["run_id"], row["finished"]) for row in table] == [(run_id, "yes")]
    answer = output_of("recommend", "--workspace", workspace, "--user", "u00003", "-k", "4")
    assert answer["run_id"] == run_id
    assert len(answer["recommendations"]) == 4
    plan = output_of("plan", "--workspace", workspace, "--config", workspace / "small.toml")
    assert [block["block"] for block in plan["blocks"]] == [0, 1, 2]
    said = peso("plan", "-w", workspace, "--config", workspace / "small.toml", "--gpu-memory", "0.1")
    assert "GiB fits into 0.1 GiB" in said.stdout and "tokens/s in training (100 teraflop/s kept up)" in said.stdout
    assert said.stderr == ""
    folders = output_of("export", "--workspace", workspace, "--format", "merged", "--output", workspace / "exported")
    assert (Path(folders["model"]) / "model.safetensors").exists()
    page = Path(output_of("report", "--workspace", workspace)["report"])
    assert page.stat().st_size > 50_000
    assert {row["method"] for row in output_of("runs", "--workspace", workspace)} == {
        "neighbours", "peso", "popular", "popular_in_block", "successor",
    }  # fmt: skip
    assert run_id in peso("runs", "--workspace", workspace).stdout


MODEL_LIBRARIES = {"torch", "transformers", "matplotlib"}


def peso_without(libraries: set[str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command that must end before it imports a slow library."""
    code = f"import sys; sys.argv = {['peso', *map(str, words)]}\nfrom peso.cli.main import main\n"
    code += f"try: main()\nfinally: assert not {libraries} & set(sys.modules), 'slow import'"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_what_is_wrong_with_a_workspace_is_said_at_once(tmp_path: Path) -> None:
    for words in (["run"], ["study", "table2"], ["recommend", "--user", "u"], ["recommend", "--all"], ["report"]):
        assert_one_sentence(peso_without(MODEL_LIBRARIES, *words, "-w", tmp_path), "holds no data")


def test_other_refusals_come_as_early(tmp_path: Path) -> None:
    output_of("simulate", "-w", tmp_path / "world", "--users", "30", "--items", "40", "--blocks", "2")
    for words, refusal in (
        (["items", "encode", "--quantizer", "k"], "no quantizer 'k'"),
        (["items", "add", tmp_path / "none.csv"], "none.csv cannot be read"),
        (["items", "refresh", "--into", tmp_path / "new", "--run", "x"], "holds no finished run"),
        (["report"], "holds no finished run"),
        (["recommend", "--user", "u00001"], "holds no finished run"),
        (["recommend", "--all", "--run", "x"], "holds no finished run"),
        (["export", "--output", tmp_path / "out"], "holds no finished run"),
        (["continue", "--from", tmp_path / "world"], "holds no finished run"),
    ):
        assert_one_sentence(peso_without(MODEL_LIBRARIES, *words, "-w", tmp_path / "world"), refusal)


def test_help_knows_whose_default_strength_it_names() -> None:
    shown = " ".join(peso("run", "--help").stdout.split())
    assert f"the form's own, {DEFAULT_STRENGTHS['decoupled']:g} for decoupled" in shown


def test_help_loads_no_model_library() -> None:
    done = peso_without(MODEL_LIBRARIES | {"polars"}, "--help")
    assert done.returncode == 0, done.stderr
    for command in (
        "import",
        "items",
        "simulate",
        "run",
        "runs",
        "baselines",
        "report",
        "study",
        "recommend",
        "export",
        "import-adapter",
        "scale",
        "plan",
    ):
        assert command in done.stdout


def test_wrong_flags_and_files(workspace: Path, tmp_path: Path, run_id: str) -> None:
    before = sorted(path for path in workspace.rglob("*"))
    run = ("run", "--workspace", workspace)
    assert_one_sentence(peso(*run, "--method", "pesto"), "method", "'pesto'", "'frozen', 'single', 'peso', 'sum_lora'")
    assert_one_sentence(peso(*run, "--proximal", "kl"), "proximal.form", "'kl'")
    assert_one_sentence(peso(*run, "--strength", "-1"), "proximal.strength: ", "greater than or equal to 0, or input")
    assert_one_sentence(peso(*run, "--config", tmp_path / "no.toml"), "no.toml does not exist")
    (tmp_path / "broken.toml").write_text("[training]\nepochs = 0\nepoch = 3\n")
    done = peso(*run, "--config", tmp_path / "broken.toml")
    assert_one_sentence(done, "training.epochs", "training.epoch:")
    (tmp_path / "syntax.toml").write_text("[training\n")
    assert_one_sentence(peso(*run, "--config", tmp_path / "syntax.toml"), "not valid TOML")
    assert_one_sentence(peso(*run, "--method", "peso", "--config", workspace / "small.toml"), "finished already")
    assert_one_sentence(
        peso("recommend", "-w", workspace, "--user", "nobody"), "user 'nobody' is not in this workspace"
    )
    assert_one_sentence(peso("recommend", "-w", workspace, "--user", "u00003", "--run", "x"), "run 'x'", run_id)
    assert_one_sentence(peso("plan", "-w", workspace, "--backbone", tmp_path), "holds no configuration and tokenizer")
    bring = ("import-adapter", tmp_path, "-w", workspace, "--config", workspace / "small.toml")
    assert_one_sentence(peso(*bring), "needs the backbone it was trained on")
    export = ("export", "-w", workspace, "--output", tmp_path / "out")
    assert_one_sentence(peso(*export, "--block", "7"), "has no block 7", "0 to 2")
    assert_one_sentence(peso(*export[:-1], workspace / "exported", "--format", "merged"), "exists already")
    assert sorted(path for path in workspace.rglob("*")) == before


def test_wrong_workspaces(workspace: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    for command in ("run", "report"):
        done = peso(command, "--workspace", empty)
        assert_one_sentence(done, "holds no data")
    assert_one_sentence(peso("runs", "--workspace", empty), "does not exist")
    assert not empty.exists()
    done = peso("simulate", "--workspace", workspace, "--users", "61", "--items", "150", "--blocks", "3")
    assert_one_sentence(done, "holds another data set")
    same = peso("simulate", "--workspace", workspace, "--users", "60", "--items", "150", "--blocks", "3")
    assert same.returncode == 0


def test_wrong_studies(workspace: Path, tmp_path: Path) -> None:
    study = ("study", "-w", workspace, "--results", tmp_path / "results")
    assert_one_sentence(peso(*study, "table9"), "no study 'table9'", "table1, table2", "capacity, gap, drift")
    assert_one_sentence(peso(*study, "table2", "--seeds", "0"), "--seeds 0", "at least one seed")
    assert_one_sentence(peso(*study, "table2", "--config", tmp_path / "no.toml"), "no.toml does not exist")
    (tmp_path / "file").write_text("")
    assert_one_sentence(peso("study", "table2", "-w", workspace, "--results", tmp_path / "file"), "check --results")
    assert_one_sentence(peso("study", "table2", "-w", tmp_path / "empty"), "holds no data")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


def test_wrong_imports_leave_nothing_behind(tmp_path: Path) -> None:
    release, target = tmp_path / "release", tmp_path / "w"
    release.mkdir()
    entry = {"previous_block": [], "current_block": ["1", "2"]}
    (release / "x.block_0.json").write_text(json.dumps({"a": entry, "b": entry}))
    (release / "x.block_1.json").write_text(json.dumps({"c": entry}))
    (release / "x.index.json").write_text(json.dumps({"1": ["<a_0>"], "2": ["<a_1>"]}))
    good = tmp_path / "good"
    shutil.copytree(release, good)
    assert_one_sentence(peso("import", "peso-release", tmp_path / "no", "-w", target), "is not a folder")
    (release / "x.block_0.json").write_text(json.dumps({"a": entry})[:-5])
    assert_one_sentence(peso("import", "peso-release", release, "-w", target), "line 1", "not valid JSON")
    (release / "x.block_0.json").write_text(json.dumps({"a": entry | {"current_block": ["1", "9"]}}))
    assert_one_sentence(peso("import", "peso-release", release, "-w", target), "item '9' of user 'a'")
    (release / "x.block_0.json").write_text(json.dumps({"a": entry | {"current_block": ["1"]}}))
    assert_one_sentence(peso("import", "peso-release", release, "-w", target), "user 'a' has one event")
    (release / "x.block_0.json").unlink()
    assert_one_sentence(peso("import", "peso-release", release, "-w", target), "no *.block_0.json")
    assert not target.exists()
    assert peso("import", "peso-release", good, "-w", target).returncode == 0
