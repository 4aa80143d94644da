"""A workspace's data folder: the data set, what came with it, and its codes, written in one step."""

from pathlib import Path

from peso.data.imported import ImportedData
from peso.data.importing import RECORD
from peso.data.item_texts import save_item_texts
from peso.data.item_times import save_item_times
from peso.data.storage import load_dataset, save_dataset
from peso.errors import WorkspaceError
from peso.files import atomic_directory, write_json
from peso.semantic_ids.catalogue import SemanticIds, build_semantic_ids, load_semantic_ids
from peso.semantic_ids.encoding import RECORD as ENCODING


def fill_workspace(workspace: Path, imported: ImportedData) -> SemanticIds | None:
    """Writes data into a new workspace; a workspace that holds the same data stays as it is.

    Args:
        workspace: its folder, created when missing.
        imported: what to write.

    Returns:
        The items' unique codes; None where they have none yet.

    Raises:
        DataError: the codes do not fit the items.
        WorkspaceError: the workspace holds other data, or other codes that were imported too.
    """
    dataset = imported.dataset
    codes = None
    if imported.source_codes is not None:
        codes = build_semantic_ids(dataset, imported.source_codes, imported.level_sizes)
    data = workspace / "data"
    if not data.exists():
        with atomic_directory(data) as temporary:
            save_dataset(dataset, temporary)
            save_item_texts(temporary, dataset.item_ids, imported.texts)
            save_item_times(temporary, dataset.item_ids, imported.first_times)
            if imported.record:
                write_json(temporary / RECORD, dict(imported.record))
            if codes is not None:
                codes.save(temporary / "semantic_ids", dataset.item_ids)
        return codes
    stored = load_dataset(data)
    if stored.fingerprint != dataset.fingerprint:
        raise _other_data(workspace, f"{stored.source}, {stored.num_events:,} events")
    folder = data / "semantic_ids"
    stored_codes = load_semantic_ids(folder, stored.item_ids) if folder.exists() else None
    was_encoded = (folder / ENCODING).exists()
    if codes is not None and not was_encoded and stored_codes is not None:
        if codes.fingerprint != stored_codes.fingerprint:
            raise _other_data(workspace, "the same events, other semantic IDs")
    save_item_times(data, dataset.item_ids, imported.first_times)  # an import of before may have kept none, or others
    return stored_codes


def _other_data(workspace: Path, what: str) -> WorkspaceError:
    return WorkspaceError(
        f"workspace {workspace} holds another data set ({what}); use a new workspace, its runs could not be compared."
    )
