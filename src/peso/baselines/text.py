"""The rival by texts of a workspace, where there are any to read."""

from pathlib import Path

from peso.baselines.base import Baseline
from peso.baselines.text_neighbours import text_neighbours
from peso.data.dataset import Dataset
from peso.semantic_ids.item_vectors import read_item_vectors


def text_rivals(workspace: Path, dataset: Dataset) -> tuple[type[Baseline], ...]:
    """Nearest neighbours by the vectors that `peso items encode` made; none where the codes were imported.

    Raises:
        WorkspaceError: the encoder, or the table of texts, is damaged.
        ConfigError: the encoder's model is gone or has changed.
    """
    vectors = read_item_vectors(workspace, dataset)
    return () if vectors is None else (text_neighbours(vectors),)
