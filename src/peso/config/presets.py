"""Configurations that come with the package, by bare names such as `paper`."""

from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "presets"


def preset_names() -> list[str]:
    """What `--config` takes instead of a file, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def file_or_preset(file: Path) -> Path:
    """The file to read.

    Args:
        file: a path, or the name of a preset; a file at that path comes first.
    """
    is_preset = not file.is_file() and str(file) in preset_names()
    return _FOLDER / f"{file}.toml" if is_preset else file
