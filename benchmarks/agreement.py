"""How far two copies of one small model are apart on two devices: losses, gradients and lists of items."""

from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.harness import Target
from peso.config import DecodingConfig
from peso.data.examples import catalogue_items, targets_of_block
from peso.decoding.recommend import Recommender, RememberedItems
from peso.decoding.trie import Trie, build_trie
from peso.training.base import training_rows
from peso.training.materials import Materials, Reader

NUM_TARGETS, LINE_TOKENS = 400, 1024
NUM_USERS, NUM_RESULTS, BEAM_WIDTH = 200, 10, 20
SEEN_ITEMS, REMEMBERED_ITEMS = 10, 20
MAX_LOSS_NATS, MAX_GRADIENT, MIN_EQUAL_LISTS = 1e-3, 1e-3, 0.99


def agreement(materials: Materials, reader: Reader, there: PreTrainedModel, here: PreTrainedModel) -> dict[str, Target]:
    """Compares two copies; on float32 models what is left is the order in which devices add.

    Args:
        materials: where histories come from.
        reader: writes them as tokens and scores them; of either copy.
        there: one copy, an adapter injected.
        here: the other.

    Returns:
        The largest difference of a code's loss in nats; of a tensor's gradient, as a share of its norm; and the share
        of users whose lists are equal in order, plain, with seen items left out, and with a memory.
    """
    rows = training_rows(materials, targets_of_block(materials.dataset, 1, "train")[:NUM_TARGETS])
    batch = reader.builder.batch(rows, line_tokens=LINE_TOKENS)
    losses, gradients = [], []
    for model in (there, here):
        model.eval().zero_grad()
        loss = reader.likelihood.negative_log_likelihood(model, batch.to(model.device))
        loss.sum().backward()
        losses.append(loss.detach().cpu())
        gradients.append({n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    targets = {
        "loss_difference": Target(float((losses[0] - losses[1]).abs().max()), MAX_LOSS_NATS, "at_most", "nats"),
        "gradient_difference": Target(_largest_share(*gradients), MAX_GRADIENT, "at_most"),
    }
    for name, arguments in _searches(materials).items():
        lists = [_lists(materials, reader, model, arguments) for model in (there, here)]
        share = float((lists[0] == lists[1]).all(axis=1).mean())
        targets[f"equal_lists_{name}"] = Target(share, MIN_EQUAL_LISTS)
    return targets


def _largest_share(there: dict[str, Tensor], here: dict[str, Tensor]) -> float:
    if there.keys() != here.keys() or not here:
        return float("nan")
    return max(float((there[name] - value).norm() / value.norm().clamp_min(1e-12)) for name, value in here.items())


def _searches(materials: Materials) -> dict[str, dict[str, Any]]:
    generator = np.random.default_rng(0)
    items = catalogue_items(materials.dataset, "known", 1)
    remembered = RememberedItems(
        [generator.choice(items, REMEMBERED_ITEMS, replace=False) for _ in range(NUM_USERS)],
        list(generator.random((NUM_USERS, REMEMBERED_ITEMS)) + 0.1),
        (1.0,) * materials.semantic_ids.codes.shape[1],
        materials.config.memory.prefix_power,
    )
    seen = [generator.choice(items, SEEN_ITEMS, replace=False) for _ in range(NUM_USERS)]
    return {"plain": {}, "without_seen": {"excluded": seen}, "with_memory": {"memory": remembered}}


def _lists(
    materials: Materials, reader: Reader, model: PreTrainedModel, arguments: dict[str, Any]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    dataset, builder = materials.dataset, reader.builder
    targets = targets_of_block(dataset, 1, "test")[:NUM_USERS]
    starts = np.maximum(dataset.user_offsets[dataset.event_user[targets]], targets - materials.config.max_history)
    prompts = [builder.prompt(dataset.event_item[s:t]) for s, t in zip(starts, targets, strict=True)]
    arguments = {name: value if name == "memory" else value[: len(prompts)] for name, value in arguments.items()}
    trie: Trie = build_trie(materials.semantic_ids.codes, catalogue_items(dataset, "known", 1))
    settings = DecodingConfig(num_recommendations=NUM_RESULTS, beam_width=BEAM_WIDTH)
    items, _ = Recommender(model, builder.vocabulary, settings).recommend(prompts, trie, **arguments)
    return items
