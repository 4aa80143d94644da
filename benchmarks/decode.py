"""Decoding: users per second with 10 beams against `transformers.generate` constrained by a trie.

One user at a time as the released code does it, with the adapter beside the weights; then used well: merged into them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from benchmarks.harness import PAIRS, Outcome, Target, compare, run_benchmark, seconds_of
from benchmarks.rivals import StockDecoder, stock_model
from benchmarks.world import build_adapted_model, load_world
from peso.config import DecodingConfig
from peso.data.examples import catalogue_items, history_starts, targets_of_block
from peso.decoding.recommend import Recommender
from peso.decoding.trie import build_trie
from peso.lm.vocabulary import Vocabulary
from peso.training.materials import Materials, Reader

BEAM_WIDTH = 10
BLOCK = 1
ALONE, BATCHED = 40.0, 8.0
RIVAL_BATCHES = (8, 32, 64, 128)
RIVAL_USERS = 128
"""Of a turn with batches."""
NUM_CHECKED = 16

Prompts = Sequence[NDArray[np.int64]]


def main() -> None:
    """Command line."""
    run_benchmark("decode", __doc__, measure)


def measure(quick: bool) -> Outcome:
    """Checks that both find the same lists, then times them in turns."""
    materials = load_world()
    world = build_adapted_model(materials)
    world.peft.eval()
    prompts = _prompts(materials, world.reader)
    vocabulary = world.reader.builder.vocabulary
    allowed = catalogue_items(materials.dataset, "known", BLOCK)
    beside = _rival(stock_model(materials, vocabulary.all_token_ids).get_base_model(), vocabulary, allowed)
    merged = _rival(stock_model(materials, vocabulary.all_token_ids).merge_and_unload(), vocabulary, allowed)
    trie = build_trie(materials.semantic_ids.codes, allowed)
    settings = DecodingConfig(num_recommendations=BEAM_WIDTH, beam_width=BEAM_WIDTH)
    checked = settings.model_copy(update={"normaliser": "vocabulary"})
    recommend = Recommender(world.reader.model, vocabulary, checked).recommend
    difference = max(_check(recommend, rival, prompts[:NUM_CHECKED], trie) for rival in (beside, merged))
    recommender = Recommender(world.reader.model, vocabulary, settings)

    def ours() -> float:
        return seconds_of(lambda: recommender.recommend(prompts, trie)) / len(prompts)

    def theirs(rival: StockDecoder, batch: int, num_batches: int) -> Callable[[], float]:
        # Batches of similar length, as ours are; in one of its own each is left as it comes.
        some = prompts[: batch * num_batches]
        ordered = sorted(some, key=len) if batch > 1 else some
        chosen = [ordered[start : start + batch] for start in range(0, len(some), batch)]
        return lambda: seconds_of(lambda: [rival.recommend(piece) for piece in chosen]) / (batch * num_batches)

    batches = RIVAL_BATCHES[:3] if quick else RIVAL_BATCHES
    users = max(batches) if quick else RIVAL_USERS
    merged.recommend(prompts[: batches[0]])  # what only a first call pays
    tried = {batch: theirs(merged, batch, users // batch)() for batch in batches}
    best = min(tried, key=lambda batch: tried[batch])
    alone = 8 if quick else 24
    comparison = compare(
        {
            "peso": ours,
            "generate_alone": theirs(beside, 1, alone),
            "generate_alone_merged": theirs(merged, 1, alone),
            "generate_batched": theirs(merged, best, users // best),
        },
        PAIRS,
    )
    targets = {
        "times_generate_alone": Target(comparison.ratio("generate_alone", "peso"), ALONE, unit="x"),
        "times_generate_alone_merged": Target(comparison.ratio("generate_alone_merged", "peso"), ALONE, unit="x"),
        "times_generate_batched": Target(comparison.ratio("generate_batched", "peso"), BATCHED, unit="x"),
    }
    details: dict[str, Any] = {
        "data": materials.dataset.source,
        "users_per_second": {side: 1 / comparison.median(side) for side in comparison.measured},
        "generate_users_per_second_by_batch": {str(batch): 1 / seconds for batch, seconds in tried.items()},
        "generate_best_batch": best,
        "users": len(prompts),
        "tokens_per_history": float(np.mean([len(prompt) for prompt in prompts])),
        "catalogue": len(allowed),
        "largest_score_difference_nats": difference,
    }
    return Outcome(targets, details)


def _rival(model: nn.Module, vocabulary: Vocabulary, allowed: NDArray[np.int64]) -> StockDecoder:
    assert isinstance(model, PreTrainedModel)
    return StockDecoder(model.eval(), vocabulary, allowed, BEAM_WIDTH)


def _prompts(materials: Materials, reader: Reader) -> list[NDArray[np.int64]]:
    """Histories of the block's test targets, in random order so that every batch is alike."""
    dataset = materials.dataset
    targets = np.random.default_rng(0).permutation(targets_of_block(dataset, BLOCK, "test"))
    starts = history_starts(dataset, targets, materials.config.max_history)
    return [
        reader.builder.prompt(dataset.event_item[start:target]) for start, target in zip(starts, targets, strict=True)
    ]


def _check(recommend: Callable[..., Any], rival: StockDecoder, prompts: Prompts, trie: Any) -> float:
    """Both must give the same scores in order, and the same items where scores do not tie.

    Returns:
        The largest difference of a score, in nats.

    Raises:
        AssertionError: they differ by more than rounding.
    """
    items, scores = recommend(prompts, trie)
    their_items, their_scores = rival.recommend(prompts)
    difference = float((torch.from_numpy(scores) - their_scores).abs().max())
    assert difference < 1e-4, f"scores differ from generate's by {difference} nats"
    for ours, theirs, at in zip(items, their_items, scores, strict=True):
        clear = np.abs(np.subtract.outer(at, at) + np.eye(len(at))).min(1) > 1e-4
        assert (ours[clear] == np.array(theirs)[clear]).all(), "lists differ from generate's"
    return difference


if __name__ == "__main__":
    main()
