"""Whether a loaded backbone is one that peso computes rightly: tried out before anything is trained.

peso reads heads row by row, lets targets share passes and lets beams share histories. Models differ in details that
such shortcuts could miss (caps, biases, windows, position tables), so each shortcut is compared with the model's own
code on a few of the workspace's items.
"""

import numpy as np
import torch
from torch import Tensor

from peso.data.examples import targets_of_block
from peso.decoding.branches import StockBody
from peso.errors import ConfigError
from peso.lm.backbone import body_of
from peso.lm.head import logit_cap, logits_of
from peso.lm.rows import many_targets_per_row, one_target_per_row
from peso.lm.token_rows import head_rows
from peso.training.materials import Materials, Reader

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
_PROBE_ITEMS, _PROBE_TARGETS = 3, 4


@torch.inference_mode()
def check_backbone(materials: Materials, reader: Reader) -> None:
    """Compares peso's ways through a backbone with the backbone's own.

    Args:
        materials: data and configuration.
        reader: of the plain backbone.

    Raises:
        ConfigError: histories are longer than the model can read, or a shortcut gives other numbers.
    """
    _check_length(materials, reader)
    reader.model.eval()
    for what, ours, theirs in (_logits(reader), _shared_pass(materials, reader), _beams(reader)):
        tolerance = _TOLERANCE.get(theirs.dtype, 0.1) if theirs.is_floating_point() else 0.0
        if not torch.allclose(ours.to(theirs), theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max())):
            raise ConfigError(
                f"backbone.source {materials.config.backbone.source!r}: {what} of {type(reader.model).__name__} are "
                "not what peso would compute, so results would be wrong; choose another model."
            )


def _check_length(materials: Materials, reader: Reader) -> None:
    config, model_config = materials.config, reader.model.config.get_text_config()
    template, num_levels = reader.builder.template, reader.builder.vocabulary.num_levels
    num_items = config.max_history + config.training.targets_per_row
    item_tokens = num_levels + len(template.separator)
    longest = len(template.prefix) + num_items * item_tokens + len(template.suffix) + 1
    limits = {"positions": getattr(model_config, "max_position_embeddings", None)}
    layer_types = getattr(model_config, "layer_types", None)
    if layer_types is None or "sliding_attention" in layer_types:
        limits["tokens in its attention window"] = getattr(model_config, "sliding_window", None)
    for name, limit in limits.items():
        if limit is not None and longest > limit:
            raise ConfigError(
                f"backbone.source {config.backbone.source!r} has {limit} {name}, and max_history {config.max_history} "
                f"with training.targets_per_row {config.training.targets_per_row} writes up to {longest} tokens; "
                "lower one of the two."
            )


def _logits(reader: Reader) -> tuple[str, Tensor, Tensor]:
    model = reader.model
    tokens = _probe(reader)[None]
    states = body_of(model)(input_ids=tokens, use_cache=False).last_hidden_state
    ours = logits_of(states, head_rows(model), logit_cap(model))
    return "logits", ours, model(input_ids=tokens, use_cache=False).logits


def _shared_pass(materials: Materials, reader: Reader) -> tuple[str, Tensor, Tensor]:
    """A few targets of one user in one pass, and each in a pass of its own."""
    dataset, config = materials.dataset, materials.config
    targets = targets_of_block(dataset, 0, "train")
    targets = targets[dataset.event_user[targets] == dataset.event_user[targets[0]]][:_PROBE_TARGETS]
    together = many_targets_per_row(dataset, targets, config.max_history, _PROBE_TARGETS)
    losses = []
    for rows in (together, one_target_per_row(dataset, targets, config.max_history)):
        pieces = (reader.builder.batch(rows.take(np.array([row]))) for row in range(len(rows)))
        losses.append(
            torch.cat(
                [reader.likelihood.negative_log_likelihood(reader.model, p.to(reader.model.device)) for p in pieces]
            )
        )
    return "losses of targets that share a pass", losses[0], losses[1].to(reader.model.dtype)


def _beams(reader: Reader) -> tuple[str, Tensor, Tensor]:
    """Two codes behind a history of which the cache is kept, and all of it read at once."""
    tokens = _probe(reader)
    body = StockBody(reader.model)
    _, beams = body.read(tokens[None, :-2], torch.tensor([len(tokens) - 2], device=tokens.device))
    parent = torch.zeros((1, 1), dtype=torch.int64, device=tokens.device)
    ours = torch.cat([beams.extend(token.view(1, 1), parent)[0] for token in tokens[-2:]])
    theirs = body_of(reader.model)(input_ids=tokens[None], use_cache=False).last_hidden_state[0, -2:]
    return "states of beams", ours, theirs


def _probe(reader: Reader) -> Tensor:
    """A short history and the codes of one more item."""
    items = np.arange(min(_PROBE_ITEMS, len(reader.builder.vocabulary.item_token_ids)))
    codes = reader.builder.vocabulary.item_token_ids[items[-1]]
    return torch.from_numpy(np.concatenate([reader.builder.prompt(items), codes])).to(reader.model.device)
