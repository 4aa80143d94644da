"""The state of a training stage after each epoch, in one file that is replaced atomically."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from peso.errors import WorkspaceError
from peso.files import atomic_path

_RECORD = "record"


def save_checkpoint(path: Path, key: str, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Writes a checkpoint over the previous one.

    Args:
        path: the checkpoint file.
        key: what the state belongs to (a hash of everything that decides it).
        record: JSON-able facts, such as the epochs so far.
        tensors: parameters and optimizer state.
    """
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"key": key, _RECORD: json.dumps(record, allow_nan=False)})


def load_checkpoint(path: Path, key: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Reads a checkpoint.

    Args:
        path: the checkpoint file.
        key: what it must belong to.

    Returns:
        The record and the tensors, or None when there is no checkpoint.

    Raises:
        WorkspaceError: it belongs to something else or is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:
        raise WorkspaceError(
            f"checkpoint {path} cannot be read ({error}); remove it to start this stage over."
        ) from None
    if metadata.get("key") != key:
        raise WorkspaceError(f"checkpoint {path} belongs to another configuration; remove it to start over.")
    return json.loads(metadata[_RECORD], parse_constant=lambda _: None), tensors
