"""The rival by texts of a workspace, where there are any to read."""

from pathlib import Path

from peso.baselines.base import Baseline
from peso.baselines.text_neighbours import text_neighbours
from peso.data.dataset import Dataset
from peso.semantic_ids.contents import read_workspace_items
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoding import VECTORS_FOLDER
from peso.semantic_ids.item_tokenizer import FOLDER, load_item_tokenizer


def text_rivals(workspace: Path, dataset: Dataset) -> tuple[type[Baseline], ...]:
    """Nearest neighbours by the vectors that `peso items encode` made; none where the codes were imported.

    Raises:
        WorkspaceError: the encoder, or the table of texts, is damaged.
        ConfigError: the encoder's model is gone or has changed.
    """
    semantic_ids = workspace / "data" / "semantic_ids"
    if not (semantic_ids / FOLDER).is_dir():
        return ()
    encoder = load_item_tokenizer(semantic_ids).encoder
    items = read_workspace_items(workspace / "data", dataset).contents
    return (text_neighbours(encode_in_batches(encoder, items, workspace / VECTORS_FOLDER)),)
