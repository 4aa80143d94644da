"""Which rows share a batch, and a pass."""

import numpy as np

from peso.data.dataset import IntArray

_BATCHES_PER_POOL = 32


def batches_of_similar_length(lengths: IntArray, weights: IntArray, batch_weight: int, seed: int) -> list[IntArray]:
    """Random batches with little padding: shuffle, sort by length inside pools of 32 batches, cut, shuffle.

    Args:
        lengths: int64 [R], tokens of each row.
        weights: int64 [R], targets of each row.
        batch_weight: targets per batch; a batch closes with the row that reaches it.
        seed: decides the order.

    Returns:
        Row numbers of each batch; together every row once.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    pool = (np.cumsum(weights[order]) - 1) // (batch_weight * _BATCHES_PER_POOL)
    order = order[np.lexsort((lengths[order], pool))]
    batch_number = (np.cumsum(weights[order]) - weights[order]) // batch_weight
    batches = np.split(order, np.flatnonzero(np.diff(batch_number)) + 1)
    return [batches[number] for number in generator.permutation(len(batches))]


def split_by_weight(weights: IntArray, num_pieces: int) -> list[IntArray]:
    """Positions in at most `num_pieces` consecutive pieces of about equal weight.

    Args:
        weights: int64 [R], positive.
        num_pieces: at least 1; fewer come back where there are fewer rows.
    """
    piece = (np.cumsum(weights) - weights) * num_pieces // max(1, int(weights.sum()))
    return np.split(np.arange(len(weights)), np.flatnonzero(np.diff(piece)) + 1)


def cut_by_length(lengths: IntArray, tokens_of_a_pass: int) -> list[IntArray]:
    """Positions in pieces of similar length, one pass each: cut where padding would cost more than one more pass.

    Each cut is the one that saves most tokens of padding, and is made if it saves more than a pass is worth.

    Args:
        lengths: int64 [R], tokens of each row, at least one row.
        tokens_of_a_pass: what a pass costs besides its tokens, in tokens; 0 leaves all rows together, as they are.
    """
    if not tokens_of_a_pass:
        return [np.arange(len(lengths))]
    order = np.argsort(lengths, kind="stable")
    pieces, waiting = [], [order]
    while waiting:
        piece = waiting.pop()
        ascending = lengths[piece]
        num_short = np.arange(1, len(piece))
        saved = num_short * (ascending[-1] - ascending[:-1])
        best = int(saved.argmax()) if len(saved) else 0
        if len(saved) and saved[best] > tokens_of_a_pass:
            waiting += [piece[best + 1 :], piece[: best + 1]]
        else:
            pieces.append(piece)
    return pieces


def passes_of_step(lengths: IntArray, weights: IntArray, num_pieces: int, tokens_of_a_pass: int) -> list[IntArray]:
    """Positions of a step's rows in the passes that share it: pieces of about equal weight, then cut by length.

    Args:
        lengths: int64 [R], tokens of each row, at least one row.
        weights: int64 [R], targets of each row.
        num_pieces: see `split_by_weight`.
        tokens_of_a_pass: see `cut_by_length`.
    """
    pieces = split_by_weight(weights, num_pieces)
    return [piece[cut] for piece in pieces for cut in cut_by_length(lengths[piece], tokens_of_a_pass)]
