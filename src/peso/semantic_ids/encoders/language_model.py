"""Mean-pooled last hidden states of a causal language model, as the paper encodes items with the backbone itself.

Shapes: B texts of a batch, L tokens, D width.
"""

import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from peso.errors import ConfigError
from peso.semantic_ids.encoders.base import ItemContents, unit_rows
from peso.semantic_ids.encoders.weights import check_same_weights, fingerprint_of_weights
from peso.semantic_ids.frozen import FrozenState, Vectors

_BATCH_TEXTS = 16
_MAX_TOKENS = 256


class LanguageModelEncoder:
    """Rows of length 1; a text without tokens gives zeros."""

    kind = "language-model"

    def __init__(self, source: str) -> None:
        """Loads model and tokenizer.

        Args:
            source: folder or hub name of a language model of `transformers`.

        Raises:
            ConfigError: there is no such model.
        """
        self._source = source
        self._model, self._tokenizer = _load(source)
        self._weights = fingerprint_of_weights(self._model)

    def encode(self, items: ItemContents) -> Vectors:
        """See `Encoder.encode`; texts are cut to 256 tokens."""
        token_ids = [self._token_ids(text) for text in items.texts]
        # Texts of like length share a batch, so that little is padded.
        order = sorted(range(len(items)), key=lambda row: len(token_ids[row]))
        pooled = torch.zeros(len(items), self._model.config.hidden_size)
        for start in range(0, len(order), _BATCH_TEXTS):
            rows = order[start : start + _BATCH_TEXTS]
            pooled[rows] = self._pool([token_ids[row] for row in rows])
        return unit_rows(pooled.numpy())

    def _token_ids(self, text: str) -> list[int]:
        if not text.strip():
            return []
        token_ids: list[int] = self._tokenizer(text, truncation=True, max_length=_MAX_TOKENS)["input_ids"]
        return token_ids

    @torch.inference_mode()
    def _pool(self, batch: list[list[int]]) -> torch.Tensor:
        """Mean over each text's own tokens, float32 [B, D]."""
        lengths_B = torch.tensor([len(ids) for ids in batch])
        longest = int(lengths_B.max())
        if longest == 0:
            return torch.zeros(len(batch), self._model.config.hidden_size)
        ids_BL = torch.zeros(len(batch), longest, dtype=torch.int64)
        for row, ids in enumerate(batch):
            ids_BL[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        mask_BL = torch.arange(longest) < lengths_B[:, None]
        device = self._model.device
        states_BLD = self._model(
            input_ids=ids_BL.to(device), attention_mask=mask_BL.to(device, torch.int64), use_cache=False
        ).last_hidden_state
        sums_BD = (states_BLD.float().cpu() * mask_BL[..., None]).sum(dim=1)
        return sums_BD / lengths_B.clamp(min=1)[:, None]

    def state(self) -> FrozenState:
        """See `Encoder.state`; the weights stay where they are, their fingerprint is kept."""
        return FrozenState({"kind": self.kind, "source": self._source, "weights": self._weights})

    @classmethod
    def from_state(cls, state: FrozenState) -> "LanguageModelEncoder":
        """The encoder that gave this state.

        Raises:
            ConfigError: the model is gone or has other weights than it had.
        """
        encoder = cls(state.facts["source"])
        check_same_weights(encoder.state(), state)
        return encoder


def _load(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModel.from_pretrained(source)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"--model {source!r} could not be loaded as a language model ({first_line}); "
            "give a folder with config.json, weights and tokenizer, or a hub name."
        ) from None
    if torch.cuda.is_available():
        torch.nn.Module.cuda(model)
    return model.eval(), tokenizer
