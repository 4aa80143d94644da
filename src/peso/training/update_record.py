"""The record beside a version's weights: what the update that made it did, and what it is the result of."""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from peso.data.storage import Kind, read_facts
from peso.files import write_json

UPDATE_FILE = "update.json"
_KINDS: dict[str, Kind] = {
    "update_id": str,
    "block": int,
    "train_seconds": float,
    "adapter_bytes": int,
    "epochs": [{"selected": bool}],
    "movement": list,
    "strengths?": [{"strength": float, "selected": bool}],
    "rates?": [{"rate_factor": float, "selected": bool}],
    "served_share?": float,
}
"""What it must hold."""


@dataclass(frozen=True)
class Update:
    """What one update did.

    Attributes:
        block: the block trained on.
        train_seconds: training time; 0 for a method that does not update.
        adapter_bytes: size of the weights file of the adapter that recommends.
        epochs: one row per epoch, with `selected`.
        movement: per group the distance travelled and the length of the anchor.
        strengths: one row per strength that was tried for the anchor, where it was chosen by the block.
        rates: one row per factor that was tried for the learning rates, where there was a choice.
        served_share: how much of the way the version that recommends went.
    """

    block: int
    train_seconds: float
    adapter_bytes: int
    epochs: list[dict[str, Any]]
    movement: list[dict[str, Any]]
    strengths: list[dict[str, Any]] = field(default_factory=list)
    rates: list[dict[str, Any]] = field(default_factory=list)
    served_share: float = 1.0

    @property
    def carried_share(self) -> float:
        """How much of the way what the next block starts from went; of several legs the last one."""
        return next((epoch.get("share", 1.0) for epoch in reversed(self.epochs) if epoch["selected"]), 1.0)


def record_update(folder: Path, update: Update, update_id: str) -> None:
    """Writes the record of an adapter folder.

    Args:
        folder: of the adapter.
        update: what made it.
        update_id: what it is the result of, `Materials.update_id`; runs of equal ones may use the folder.
    """
    write_json(folder / UPDATE_FILE, asdict(update) | {"update_id": update_id})


def read_update(folder: Path) -> Update:
    """The record in an adapter folder.

    Raises:
        WorkspaceError: it is missing or damaged.
    """
    record = _update_record(folder)
    update = Update(**{entry.name: record[entry.name] for entry in fields(Update) if entry.name in record})
    # Records from before there was a lead.
    return update if "served_share" in record else replace(update, served_share=update.carried_share)


def update_id_of(folder: Path) -> str:
    """What the adapter in a folder is the result of, `Materials.update_id`.

    Raises:
        WorkspaceError: its record is missing or damaged.
    """
    return str(_update_record(folder)["update_id"])


def _update_record(folder: Path) -> dict[str, Any]:
    cure = f"restore it, or remove {folder} to train the block again"
    return read_facts(folder / UPDATE_FILE, "update record", _KINDS, cure)
