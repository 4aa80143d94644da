"""Log-probabilities of a level's codes after a prefix, from the model's hidden states.

Shapes: B users, K beams, D width, C codes of a level, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from peso.lm.head import logit_cap, logits_of
from peso.lm.token_rows import head_rows
from peso.types import DecodingNormaliser


class CodeScores:
    """The head's rows, gathered once for many searches with the same weights."""

    @torch.inference_mode()
    def __init__(
        self, model: PreTrainedModel, level_token_ids: Sequence[Tensor], normaliser: DecodingNormaliser
    ) -> None:
        """Gathers the rows.

        Args:
            model: causal LM, plain or with an adapter injected; after a change of its weights make a new object.
            level_token_ids: per level, int64 [C], the token of each code, on the model's device.
            normaliser: over what the softmax runs; see `DecodingConfig.normaliser`.
        """
        self.level_token_ids = list(level_token_ids)
        self.normaliser: DecodingNormaliser = normaliser
        self._cap = logit_cap(model)
        if normaliser == "vocabulary":
            self._rows = [head_rows(model)]
        else:
            self._rows = [head_rows(model, token_ids) for token_ids in self.level_token_ids]

    def log_probabilities(self, hidden_BKD: Tensor, level: int) -> Tensor:
        """Of each code of the level, float32 [B, K, C] in nats.

        With "trie" they are those of "level" still: their sum over the children that exist is divided out by
        `best_children`, which knows the children.
        """
        if self.normaliser == "vocabulary":
            logits_BKV = logits_of(hidden_BKD, self._rows[0], self._cap)
            mass = torch.logsumexp(logits_BKV, dim=-1, keepdim=True)
            return logits_BKV[..., self.level_token_ids[level]] - mass
        return torch.log_softmax(logits_of(hidden_BKD, self._rows[level], self._cap), dim=-1)
