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
        self, prompts: Sequence[NDArray[np.int64]], trie: Trie
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best items for each history.

        Args:
            prompts: token ids of each history (see `SequenceBuilder.prompt`).
            trie: the items that may be named.

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
                self._padded([prompts[number] for number in chosen]),
                torch.from_numpy(lengths[chosen]),
                trie,
                self._level_token_ids,
                self._config.beam_width,
                k,
            )
            items[chosen], scores[chosen] = result.items.numpy(), result.scores.numpy()
        return items, scores

    def _padded(self, prompts: Sequence[NDArray[np.int64]]) -> Tensor:
        rows = np.full((len(prompts), max(map(len, prompts))), self._pad, dtype=np.int64)
        for number, prompt in enumerate(prompts):
            rows[number, : len(prompt)] = prompt
        return torch.from_numpy(rows)
