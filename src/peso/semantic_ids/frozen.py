"""What was fitted once and must give the same answer ever after: facts in JSON, numbers in safetensors, no pickle."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from peso.data.storage import read_facts
from peso.errors import WorkspaceError
from peso.files import atomic_path, hash_of_json, sha256_of, write_json

Vectors = NDArray[np.float32]
"""One row per item, float32 [N, D]."""


@dataclass(frozen=True, eq=False)
class FrozenState:
    """Everything that decides what an encoder or a codebook answers.

    Attributes:
        facts: JSON values, `kind` (a registry's key) among them.
        tensors: arrays by name.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The key of the class that reads this state."""
        return str(self.facts["kind"])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over facts and tensors."""
        parts = [hash_of_json(dict(self.facts)).encode()]
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            parts += [name.encode(), repr((tensor.shape, tensor.dtype.str)).encode(), tensor.tobytes()]
        return sha256_of(*parts)

    def save(self, folder: Path, name: str) -> None:
        """Writes `<name>.safetensors` and, last, `<name>.json`.

        Args:
            folder: created when missing.
            name: of both files.
        """
        with atomic_path(folder / f"{name}.safetensors") as temporary:
            save_file({key: np.ascontiguousarray(tensor) for key, tensor in self.tensors.items()}, temporary)
        write_json(folder / f"{name}.json", {"fingerprint": self.fingerprint, "facts": dict(self.facts)})


def load_frozen(folder: Path, name: str) -> FrozenState:
    """Reads what `FrozenState.save` wrote.

    Raises:
        WorkspaceError: a file is missing, damaged, or not what was written.
    """
    stored = read_facts(folder / f"{name}.json", f"frozen {name}", {"fingerprint": str, "facts": dict})
    path = folder / f"{name}.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WorkspaceError(f"frozen {name}: {path} cannot be read ({error}); encode the items again.") from None
    state = FrozenState(stored["facts"], tensors)
    if "kind" not in state.facts or state.fingerprint != stored["fingerprint"]:
        raise WorkspaceError(f"frozen {name} in {folder} is damaged (wrong fingerprint); encode the items again.")
    return state
