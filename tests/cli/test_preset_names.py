"""Presets come with the package: by name from a repository, and from a wheel without one."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import REPOSITORY
from peso.cli.main import app
from peso.config import make_config, preset_names
from peso.errors import ConfigError
from worlds import fill_workspace, tiny_dataset

NAMES = ["default_llm", "demo", "paper"]


def test_every_preset_is_a_configuration() -> None:
    assert preset_names() == NAMES
    paper, default_llm, demo = (make_config(Path(name)) for name in ("paper", "default_llm", "demo"))
    assert paper.adapter.token_rows == "all" and paper.proximal.form == "paper"
    assert default_llm.adapter.stored_precision == "bfloat16" and not demo.memory.use
    assert make_config(Path("demo"), {"seed": 3}).seed == 3


def test_a_file_of_a_presets_name_comes_first_and_a_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert make_config(Path("demo")).training.epochs == 5
    (tmp_path / "paper").write_text("seed = 7", encoding="utf-8")
    assert make_config(Path("paper")).seed == 7
    for wrong in ("papers", "configs/paper.toml", "paper.toml"):
        with pytest.raises(ConfigError, match=r"check the path given to --config, or name a preset: default_llm, demo"):
            make_config(Path(wrong))


def test_the_command_takes_a_name(tmp_path: Path) -> None:
    fill_workspace(tmp_path, tiny_dataset())
    done = CliRunner().invoke(app, ["plan", "-w", str(tmp_path), "--config", "demo", "--json"])
    assert done.exit_code == 0, done.output


def test_a_wheel_has_them(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        "import peso; from pathlib import Path; from peso.config import make_config, preset_names; "
        "print(peso.__file__, *(name for name in preset_names() if make_config(Path(name))))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == [str(tmp_path / "installed" / "peso" / "__init__.py"), *NAMES]
