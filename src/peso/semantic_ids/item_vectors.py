"""The vectors that a workspace's codes were made from."""

from pathlib import Path

from peso.data.dataset import Dataset
from peso.semantic_ids.contents import read_workspace_items
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoding import VECTORS_FOLDER
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.item_tokenizer import FOLDER, load_item_tokenizer


def read_item_vectors(workspace: Path, dataset: Dataset) -> Vectors | None:
    """Vectors of all items, float32 [N, D]; None where the codes were imported and so were made from nothing we have.

    Args:
        workspace: with data.
        dataset: the workspace's.

    Raises:
        WorkspaceError: the encoder, or the table of texts, is damaged.
        ConfigError: the encoder's model is gone or has changed.
    """
    semantic_ids = workspace / "data" / "semantic_ids"
    if not (semantic_ids / FOLDER).is_dir():
        return None
    encoder = load_item_tokenizer(semantic_ids).encoder
    items = read_workspace_items(workspace / "data", dataset).contents
    return encode_in_batches(encoder, items, workspace / VECTORS_FOLDER)
