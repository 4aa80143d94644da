"""How likely the model thinks each target is, and the training loss that follows from it.

Shapes: B batch, L length, D width, T targets, M codes per item, C codes of a level, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from peso.lm.backbone import body_of
from peso.lm.head import logit_cap, logits_of
from peso.lm.kernels import attending_by_flash
from peso.lm.quick_stack import is_written_out, states_at
from peso.lm.sequences import Batch
from peso.lm.short_attention import attending_in_products
from peso.lm.token_rows import head_rows
from peso.lm.vocabulary import Vocabulary
from peso.types import Normaliser

_LOGITS_AT_ONCE = 2**26  # 256 MiB in float32


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
        self._level_token_ids = [torch.from_numpy(ids) for ids in vocabulary.level_token_ids]
        self._end_token_id = vocabulary.end_token_id

    def negative_log_likelihood(self, model: PreTrainedModel, batch: Batch, temperature: float = 1.0) -> Tensor:
        """-log p of each code of each target given the codes before it.

        Args:
            model: causal LM, plain or with an adapter injected.
            batch: what to score; answers with an end need the normaliser "vocabulary".
            temperature: what logits are divided by.

        Returns:
            float32 [T, M] in nats; the sum over M is -log p(item | history), the paper's loss of a target. [T, M + 1]
            with the end's loss last where answers have one.
        """
        answers_TMD = answer_states(model, batch)
        cap = logit_cap(model)
        if self.normaliser == "vocabulary":
            level_token_ids = [ids.to(answers_TMD.device) for ids in self._level_token_ids]
            columns = [ids[batch.codes[:, m]] for m, ids in enumerate(level_token_ids)]
            if batch.answer_index.shape[1] > len(columns):
                assert self._end_token_id is not None, "an answer's end needs an end token"
                columns.append(torch.full_like(columns[0], self._end_token_id))
            labels = torch.stack(columns, dim=1)
            states = answers_TMD.flatten(0, 1)
            return cross_entropy(states, head_rows(model), labels.flatten(), cap, temperature).view_as(labels)
        losses_by_level = []
        for level, token_ids in enumerate(self._level_token_ids):
            rows_CD = head_rows(model, token_ids)
            states, labels = answers_TMD[:, level], batch.codes[:, level]
            losses_by_level.append(cross_entropy(states, rows_CD, labels, cap, temperature))
        return torch.stack(losses_by_level, dim=1)


def cross_entropy(
    states_ND: Tensor, rows_CD: Tensor, labels_N: Tensor, cap: float | None, temperature: float = 1.0
) -> Tensor:
    """Cross-entropy of each state, float32 [N]; many logits are made again backwards instead of being kept.

    Args:
        states_ND: after the final norm.
        rows_CD: of the head, over which the softmax runs.
        labels_N: int64, which row each state should find.
        cap: see `peso.lm.head.logits_of`.
        temperature: what logits are divided by.
    """

    def losses(states: Tensor, labels: Tensor) -> Tensor:
        logits = logits_of(states, rows_CD, cap)
        if temperature != 1.0:
            logits = logits / temperature
        return functional.cross_entropy(logits, labels, reduction="none")

    at_once = max(1, _LOGITS_AT_ONCE // len(rows_CD))
    if len(labels_N) <= at_once:
        return losses(states_ND, labels_N)
    pieces = zip(states_ND.split(at_once), labels_N.split(at_once), strict=True)
    return torch.cat([checkpoint(losses, states, labels, use_reentrant=False) for states, labels in pieces])


def answer_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The states from which codes are predicted, [T, M, D] after the final norm; M + 1 where answers have an end."""
    if is_written_out(model, batch.input_ids):
        mask, positions = None, None
        if batch.visibility is not None:
            mask, positions = batch.visibility.dense_mask(model.dtype), batch.position_ids
        states = states_at(model, batch.input_ids, mask, positions, batch.answer_index.flatten())
        if states is not None:
            return states.unflatten(0, batch.answer_index.shape)
    return hidden_states(model, batch).flatten(0, 1)[batch.answer_index]


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The states of all tokens, [B, L, D] after the final norm."""
    with attending_in_products(model, batch.input_ids.shape[1]):
        if batch.visibility is None:
            with attending_by_flash(model):
                return body_of(model)(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        # Blocks are for FlexAttention, whose way back exists on accelerators only.
        uses_flex = model.config._attn_implementation == "flex_attention"
        return body_of(model)(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.visibility.block_mask() if uses_flex else batch.visibility.dense_mask(model.dtype),
            use_cache=False,
        ).last_hidden_state
