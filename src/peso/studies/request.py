"""What can be wrong with a request for a study before anything is loaded."""

from pathlib import Path
from typing import get_args

from peso.errors import ConfigError
from peso.types import StudyName


def check_request(name: str, num_seeds: int, num_jobs: int = 1, config_file: Path | None = None) -> None:
    """Refuses what needs no data to be refused.

    Raises:
        ConfigError: there is no such study, fewer than one seed or job is asked for, or the configuration can be read
            only once.
    """
    if name not in get_args(StudyName):
        raise ConfigError(f"there is no study {name!r}; choose one of {', '.join(get_args(StudyName))}.")
    if num_seeds < 1:
        raise ConfigError(f"--seeds {num_seeds}: a study needs at least one seed.")
    if num_jobs < 1:
        raise ConfigError(f"--jobs {num_jobs}: at least one run at a time is needed.")
    if config_file is not None and (config_file.is_fifo() or config_file.is_char_device()):
        raise ConfigError(
            f"--config {config_file} can be read only once, and a study reads it for each run; give a file."
        )
