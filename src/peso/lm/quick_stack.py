"""Short rows go through a Llama-like decoder stack layer by layer as `decoder_layer` writes it out.

The body's own code stays for everything else: caches, long rows, other devices and types, checkpointing, dropout.
Whether a model is of this kind is found out by trying: it must give the model's own result on a probe.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from peso.lm.backbone import body_of
from peso.lm.decoder_layer import LayerShape, decoder_layer
from peso.lm.folding import UnknownLayerError, folded_products, norm_epsilons

LONGEST = 176
"""Rows up to this length, such as twenty targets of four codes behind twenty items: attention weights are kept."""

_PROBE_TOKENS = 5
_TOLERANCE = 1e-4


def write_out_stack(model: PreTrainedModel) -> None:
    """Lets a body compute short rows the written-out way, if that is the same function; changed in place.

    Args:
        model: a plain backbone on a CPU, float32. Adapters attached later are found when they are.
    """
    body: Any = body_of(model)
    if model.dtype != torch.float32 or model.device.type != "cpu" or not hasattr(body, "layers"):
        return
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size, (2, _PROBE_TOKENS), generator=generator)
    was_training = model.training
    model.train(False)
    with torch.no_grad():
        try:
            ours = _through_layers(body, ids, None, None).unflatten(0, ids.shape)
        except UnknownLayerError:
            ours = None
        theirs = type(body).forward(body, input_ids=ids, use_cache=False).last_hidden_state
    model.train(was_training)
    if ours is not None and torch.allclose(ours, theirs, rtol=_TOLERANCE, atol=_TOLERANCE * float(theirs.abs().max())):
        body.__dict__["forward"] = MethodType(_forward, body)


@contextmanager
def layer_by_layer(model: PreTrainedModel) -> Iterator[None]:
    """Inside, every module of the body runs by itself, so that hooks see its inputs.

    Args:
        model: a plain backbone, an adapter injected or not.
    """
    attributes = body_of(model).__dict__
    written_out = attributes.pop("forward", None)
    try:
        yield
    finally:
        if written_out is not None:
            attributes["forward"] = written_out


def _forward(
    self: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    use_cache: bool | None = None,
    **others: Any,
) -> Any:
    is_masked_as_here = attention_mask is None or (attention_mask.dim() == 4 and attention_mask.is_floating_point())
    if input_ids is not None and is_masked_as_here and use_cache is False and not others and _takes(self, input_ids):
        try:
            states = _through_layers(self, input_ids, attention_mask, position_ids)
            return BaseModelOutputWithPast(last_hidden_state=states.unflatten(0, input_ids.shape))
        except UnknownLayerError:
            pass
    return type(self).forward(
        self,
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=use_cache,
        **others,
    )


def is_written_out(model: PreTrainedModel, ids: Tensor) -> bool:
    """Whether `states_at` may be asked for some rows.

    Args:
        model: an adapter injected or not.
        ids: int64 [B, L].
    """
    body: Any = body_of(model)
    return "forward" in body.__dict__ and _takes(body, ids)


def states_at(
    model: PreTrainedModel, ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, places: Tensor
) -> Tensor | None:
    """States of some tokens after the final norm, and no work for what they do not depend on.

    Args:
        model: an adapter injected or not, whose body is written out.
        ids: int64 [B, L].
        attention_mask: float32 [B, 1, L, L], added to attention's scores; None for causal rows.
        position_ids: int64 [B, L]; None for 0, 1, ...
        places: int64 [N], of the wanted tokens in the flattened ids.

    Returns:
        float32 [N, D], differentiable; None if a layer has become something else since.
    """
    try:
        return _through_layers(body_of(model), ids, attention_mask, position_ids, places)
    except UnknownLayerError:
        return None


def _takes(body: Any, ids: Tensor) -> bool:
    return ids.shape[1] <= LONGEST and _is_plain(body)


def _is_plain(body: Any) -> bool:
    config = body.config
    drops = body.training and getattr(config, "attention_dropout", 0.0) > 0
    is_whole = getattr(config, "sliding_window", None) is None
    is_single = body.dtype == torch.float32 and body.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    # The library's own question looks at every module of the body, which takes longer than a layer.
    is_checkpointed = any(getattr(layer, "gradient_checkpointing", False) for layer in body.layers)
    return is_single and is_whole and not drops and not is_checkpointed


def _through_layers(
    body: Any,
    ids: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    kept: Tensor | None = None,
) -> Tensor:
    """States after the final norm, [B L, D], or of the tokens at some places."""
    num_lines, num_tokens = ids.shape
    products = [folded_products(layer) for layer in body.layers]  # before anything is computed: it may raise
    distinct, spread = ids.unique(return_inverse=True)
    states = body.embed_tokens(distinct)
    positions = torch.arange(num_tokens)[None] if position_ids is None else position_ids
    with torch.no_grad():
        cosine, sine = body.rotary_emb(states, positions)
        half = cosine.shape[-1] // 2
        turns = torch.complex(cosine[..., :half], sine[..., :half])[:, None]
        bias = (
            torch.full((num_tokens, num_tokens), float("-inf")).triu_(1) if attention_mask is None else attention_mask
        )
    heads = body.config.num_attention_heads, body.config.num_key_value_heads
    last = len(products) - 1
    for number, (layer, folded) in enumerate(zip(body.layers, products, strict=True)):
        shape = LayerShape(
            num_lines, num_tokens, heads[1], heads[0] // heads[1], 2 * half, *norm_epsilons(layer),
            spread=spread.flatten() if number == 0 else None, kept=kept if number == last else None,
        )  # fmt: skip
        states = decoder_layer(states, turns, bias, shape, folded)
    normed: Tensor = body.norm(states)
    return normed
