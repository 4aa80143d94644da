"""How likely the model thinks each target is, and the training loss that follows from it.

Shapes: B batch, L length, D width, T targets, M codes per item, C codes of a level, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from peso.lm.backbone import body_of, head_rows
from peso.lm.sequences import Batch
from peso.lm.vocabulary import Vocabulary
from peso.types import Normaliser


class CodeLikelihood:
    """Scores the codes of targets, computing logits only where an answer stands."""

    def __init__(self, vocabulary: Vocabulary, normaliser: Normaliser) -> None:
        """Keeps each level's token ids.

        Args:
            vocabulary: the semantic-ID tokens.
            normaliser: "level" runs each softmax over the codes of that level; "vocabulary" over every token, as
                the paper's loss does (a code's loss is then larger by the mass that leaks to other tokens).
        """
        self.normaliser = normaliser
        self.level_token_ids = [torch.from_numpy(ids) for ids in vocabulary.level_token_ids]

    def negative_log_likelihood(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """-log p of each code of each target given the codes before it.

        Args:
            model: causal LM, plain or with an adapter injected.
            batch: what to score.

        Returns:
            float32 [T, M] in nats; the sum over M is -log p(item | history), the paper's loss of a target.
        """
        hidden_BLD = hidden_states(model, batch)
        answers_TMD = hidden_BLD.flatten(0, 1)[batch.answer_index]
        if self.normaliser == "vocabulary":
            every_token = torch.arange(model.get_output_embeddings().weight.shape[0])
            rows_VD = head_rows(model, every_token)
            labels = torch.stack([ids[batch.codes[:, m]] for m, ids in enumerate(self.level_token_ids)], dim=1)
            logits_TMV = functional.linear(answers_TMD, rows_VD).float()
            losses = functional.cross_entropy(logits_TMV.flatten(0, 1), labels.flatten(), reduction="none")
            return losses.view_as(labels)
        losses_by_level = []
        for level, token_ids in enumerate(self.level_token_ids):
            logits_TC = functional.linear(answers_TMD[:, level], head_rows(model, token_ids)).float()
            losses_by_level.append(functional.cross_entropy(logits_TC, batch.codes[:, level], reduction="none"))
        return torch.stack(losses_by_level, dim=1)


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The states from which codes are predicted, [B, L, D] after the final norm."""
    if batch.visibility is None:
        return body_of(model)(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    return body_of(model)(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.visibility.dense_mask(model.dtype),
        use_cache=False,
    ).last_hidden_state
