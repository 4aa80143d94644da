"""Lists in which items that nobody has taken for long have places of their own.

A model names what it has seen often; an item of the latest block rarely survives the first levels of a beam search.
Here a share of the beams searches among the new items alone, and the same share of the list is theirs: the best of them
by the same exact scores, in the order of all scores. A list that holds as many without help stays as it is.

Shapes: B users, k places, J of them reserved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from peso.decoding.recommend import Recommender, RememberedItems
from peso.decoding.trie import Trie

Items = NDArray[np.int64]
Scores = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reserved:
    """What is kept for new items.

    Attributes:
        trie: the new items that may be named.
        share: of beams and places, above 0 and at most 1.
    """

    trie: Trie
    share: float

    def among(self, items: Items) -> "Reserved | None":
        """What is kept where only some items, int64 [n], may be named; None where no new one is among them."""
        new = np.intersect1d(self.trie.leaf_items.numpy(), items)
        return replace(self, trie=self.trie.restricted_to(new)) if len(new) else None


def recommend_with_new(
    recommender: Recommender,
    prompts: Sequence[Items],
    trie: Trie,
    reserved: Reserved,
    excluded: Sequence[Items] | None = None,
    memory: RememberedItems | None = None,
) -> tuple[Items, Scores]:
    """As `Recommender.recommend`, with a share of beams and places for new items; all beams together stay as many.

    Args:
        recommender: searches; its normaliser must not depend on the trie.
        prompts: token ids of each history.
        trie: the items that may be named, new ones among them.
        reserved: what is kept for new ones; rounded up to whole beams and places.
        excluded: items that must not be named, per history.
        memory: what a memory knows of each history's user.
    """
    places = ceil(reserved.share * recommender.num_recommendations)
    beams = max(ceil(reserved.share * recommender.beam_width), places)
    others = max(recommender.beam_width - beams, recommender.num_recommendations)
    main = recommender.search(prompts, trie, excluded, memory, beam_width=others)
    newest = recommender.search(prompts, reserved.trie, excluded, memory, beam_width=beams, num_recommendations=places)
    return merge((main.items.numpy(), main.scores.numpy()), (newest.items.numpy(), newest.scores.numpy()))


def merge(main: tuple[Items, Scores], newest: tuple[Items, Scores]) -> tuple[Items, Scores]:
    """Puts the best new items into lists, in place of the worst others.

    Args:
        main: items [B, k], best first, -1 where a list is short, and their scores.
        newest: the best new items [B, J] and their scores, likewise.

    Returns:
        Items and scores [B, k], best first: all of `newest` that a list has room for, the best of `main` besides.
    """
    k = main[0].shape[1]
    items, scores = np.concatenate([newest[0], main[0]], axis=1), np.concatenate([newest[1], main[1]], axis=1)
    is_reserved = np.arange(items.shape[1]) < newest[0].shape[1]
    # What both searches found counts once, as reserved.
    is_twice = (main[0][:, :, None] == newest[0][:, None, :]).any(axis=2) & (main[0] >= 0)
    scores[:, ~is_reserved] = np.where(is_twice, -np.inf, main[1])
    is_there = np.isfinite(scores)
    chosen = np.lexsort((-scores, ~(is_reserved & is_there)), axis=1)[:, :k]  # the reserved first, then by score
    items, scores = np.take_along_axis(items, chosen, axis=1), np.take_along_axis(scores, chosen, axis=1)
    items = np.where(np.isfinite(scores), items, -1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
