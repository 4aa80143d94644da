"""From histories to lists of items: prompts in batches of similar length, beams back in the callers' order."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from peso.config import DecodingConfig
from peso.decoding.beam import beam_search
from peso.decoding.trie import Trie
from peso.lm.vocabulary import Vocabulary

_NO_ITEM = -1


class Recommender:
    """Decodes recommendations for many histories with one model."""

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary, config: DecodingConfig) -> None:
        """Keeps what every call needs.

        Args:
            model: causal LM, plain or with an adapter injected.
            vocabulary: the semantic-ID tokens.
            config: list length, width and batch size.
        """
        self._model = model
        self._pad = vocabulary.pad_token_id
        self._level_token_ids = [torch.from_numpy(ids) for ids in vocabulary.level_token_ids]
        self._config = config

    def recommend(
        self,
        prompts: Sequence[NDArray[np.int64]],
        trie: Trie,
        excluded: Sequence[NDArray[np.int64]] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best items for each history.

        Args:
            prompts: token ids of each history (see `SequenceBuilder.prompt`).
            trie: the items that may be named.
            excluded: items that must not be named, per history; k others are certain to be found while the beam
                width is at least k more than these.

        Returns:
            Items, int64 [len(prompts), k], best first, -1 where the catalogue is smaller than k; and their
            log-probabilities in nats, float32, -inf there.
        """
        self._model.eval()
        k = self._config.num_recommendations
        items = np.full((len(prompts), k), -1, dtype=np.int64)
        scores = np.full((len(prompts), k), -np.inf, dtype=np.float32)
        lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), self._config.batch_users):
            chosen = order[start : start + self._config.batch_users]
            result = beam_search(
                self._model,
                _padded([prompts[number] for number in chosen], self._pad),
                torch.from_numpy(lengths[chosen]),
                trie,
                self._level_token_ids,
                self._config.beam_width,
                k,
                None if excluded is None else _padded([excluded[number] for number in chosen], _NO_ITEM),
            )
            items[chosen], scores[chosen] = result.items.numpy(), result.scores.numpy()
        return items, scores


def _padded(rows: Sequence[NDArray[np.int64]], filler: int) -> Tensor:
    table = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return torch.from_numpy(table)
