"""The frozen pair of encoder and codebook, kept beside the semantic IDs so that tomorrow's items can be encoded."""

from dataclasses import dataclass
from pathlib import Path

from peso.errors import WorkspaceError
from peso.semantic_ids.encoders.base import Encoder
from peso.semantic_ids.encoders.registry import restore_encoder
from peso.semantic_ids.frozen import load_frozen
from peso.semantic_ids.quantizers.base import Codebook
from peso.semantic_ids.quantizers.registry import restore_codebook

FOLDER = "tokenizer"


@dataclass(frozen=True, eq=False)
class ItemTokenizer:
    """From an item's content to its codes.

    Attributes:
        encoder: from contents to vectors.
        codebook: from vectors to codes.
    """

    encoder: Encoder
    codebook: Codebook

    def save(self, folder: Path) -> None:
        """Writes `encoder` and `codebook`, each as JSON and safetensors."""
        self.encoder.state().save(folder, "encoder")
        self.codebook.state().save(folder, "codebook")


def load_item_tokenizer(semantic_ids_folder: Path) -> ItemTokenizer:
    """Reads the tokenizer beside a workspace's semantic IDs.

    Args:
        semantic_ids_folder: `W/data/semantic_ids`.

    Raises:
        WorkspaceError: the semantic IDs were imported, so there is none, or it is damaged.
        ConfigError: the encoder's model is gone or has changed.
    """
    folder = semantic_ids_folder / FOLDER
    if not folder.is_dir():
        raise WorkspaceError(
            f"{semantic_ids_folder} holds codes that were imported, without the codebook that made them; "
            "`peso items encode` in a new workspace learns one."
        )
    return ItemTokenizer(
        restore_encoder(load_frozen(folder, "encoder")), restore_codebook(load_frozen(folder, "codebook"))
    )
