"""The semantic-ID tokens' rows of embedding and head, read without rebuilding the whole matrices.

PEFT writes the trained rows into a copy of the whole embedding (and of the whole head) at every use, and its gradient
is as large. A language model's vocabulary is a hundred times the codes; here only the rows in question are touched.
Parameters, names and saved files stay PEFT's.

Shapes: B batch, L length, D width, V vocabulary, C codes, R trained rows.
"""

from bisect import bisect_left
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from peso.lm.sharding import whole_matrix

_SLOTS = "_row_slots"


def read_rows_in_place(model: PeftModel) -> None:
    """Lets the embedding look its trained rows up instead of copying the matrix.

    Args:
        model: its token layer over the embedding is changed in place; with several adapters active, or an embedding
            that does more than look up, PEFT's own way stays.
    """
    for module in model.modules():
        if isinstance(module, TrainableTokensLayer) and isinstance(module.get_base_layer(), nn.Embedding):
            module.__dict__["forward"] = MethodType(_embed, module)


def head_rows(model: PreTrainedModel, token_ids: Tensor | None = None) -> Tensor:
    """The output rows of some tokens, including what an adapter trains of them.

    Args:
        model: a causal LM, plain or with a PEFT adapter injected.
        token_ids: int64 [C], best on the CPU; None for every token.

    Returns:
        [C, D], differentiable with respect to the adapter's token rows.
    """
    head = model.get_output_embeddings()
    layer = getattr(head, "token_adapter", None)
    if layer is None:
        return _taken(whole_matrix(head.weight), token_ids)
    trained = _trained_rows(layer)
    if trained is None:
        merged = layer.get_merged_weights(layer.active_adapters)
        return _taken(merged, token_ids)
    rows_RD, slots_V = trained
    if token_ids is None:
        return _choose(slots_V, rows_RD, whole_matrix(layer.get_base_layer().weight))
    first = _first_of_run(layer, token_ids)
    if first is not None:
        return rows_RD[first : first + len(token_ids)]  # a level's tokens are neighbours: a view, and no scatter back
    token_ids = token_ids.to(slots_V.device)
    return _choose(slots_V[token_ids], rows_RD, whole_matrix(layer.get_base_layer().weight)[token_ids])


def _taken(matrix_VD: Tensor, token_ids: Tensor | None) -> Tensor:
    return matrix_VD if token_ids is None else matrix_VD[token_ids]


def _first_of_run(layer: TrainableTokensLayer, token_ids: Tensor) -> int | None:
    """Where the rows of some tokens stand if they stand next to each other in that order; None otherwise."""
    wanted = token_ids.tolist()
    trained = layer.token_indices[layer.active_adapters[0]]
    first = bisect_left(trained, wanted[0]) if wanted else 0
    return first if trained[first : first + len(wanted)] == wanted else None


def _embed(self: TrainableTokensLayer, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base = self.get_base_layer()
    trained = _trained_rows(self)
    if trained is None or type(base) is not nn.Embedding or base.max_norm is not None or base.weight.requires_grad:
        return TrainableTokensLayer.forward(self, x, *args, **kwargs)
    rows_RD, slots_V = trained
    return _choose(slots_V[x], rows_RD, functional.embedding(x, base.weight))


def _choose(slots: Tensor, rows_RD: Tensor, frozen: Tensor) -> Tensor:
    """Trained rows where there is one (slot >= 0), frozen ones elsewhere; shaped like `slots`, and D."""
    trained = functional.embedding(slots.clamp(min=0), rows_RD.to(frozen.dtype))
    return torch.where((slots >= 0)[..., None], trained, frozen)


def _trained_rows(layer: TrainableTokensLayer) -> tuple[Tensor, Tensor] | None:
    """The one active adapter's rows [R, D] and, for each token of the vocabulary, its row's number or -1."""
    names = [name for name in layer.active_adapters if name in layer.trainable_tokens_delta]
    if len(names) != 1 or layer.disable_adapters or layer.merged:
        return None
    weight: Tensor = layer.get_base_layer().weight  # type: ignore[assignment]
    slots_V: Tensor | None = getattr(layer, _SLOTS, None)
    if slots_V is None or slots_V.device != weight.device:
        tokens = torch.tensor(layer.token_indices[names[0]], device=weight.device)
        slots_V = torch.full((len(weight),), -1, device=weight.device)
        slots_V[tokens] = torch.arange(len(tokens), device=weight.device)
        setattr(layer, _SLOTS, slots_V)
    return layer.trainable_tokens_delta[names[0]], slots_V
