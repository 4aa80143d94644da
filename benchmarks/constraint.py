"""What choosing real items costs at every level of a beam search, beside a top-k over all codes without a trie."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness import Comparison, compare, per_unit
from peso.decoding.expansion import best_children
from peso.decoding.trie import Trie

STEPS_PER_TURN = 10
_WARM_UP_RUNS = 2


@dataclass(frozen=True, eq=False)
class Level:
    """What one step chooses from.

    Attributes:
        nodes: int64 [B, K], where the beams stand.
        scores: float32 [B, K], of the beams.
        log_probabilities: float32 [B, K, C], of the codes that may follow.
    """

    nodes: Tensor
    scores: Tensor
    log_probabilities: Tensor


def compare_with_decoding(
    decode: Callable[[], float], trie: Trie, num_users: int, beam_width: int, num_codes: int, turns: int
) -> Comparison:
    """Seconds of `decode`, and of choosing at all levels of one search `with_trie` and `without_trie`, by turns.

    Args:
        decode: decodes one batch and returns its seconds.
        trie: the catalogue, on the device to measure.
        num_users: users of the batch B.
        beam_width: beams per user K.
        num_codes: codes of every level C.
        turns: measurements kept of each side.
    """
    levels = _random_levels(trie, num_users, beam_width, num_codes)
    with_trie = _recorded(lambda: _choose(trie, levels, beam_width), trie.device)
    without_trie = _recorded(lambda: _choose_freely(levels, beam_width), trie.device)
    sides = {
        "decode": decode,
        "with_trie": per_unit(with_trie, STEPS_PER_TURN),
        "without_trie": per_unit(without_trie, STEPS_PER_TURN),
    }
    return compare(sides, turns)


def overhead_of(comparison: Comparison) -> float:
    """The trie's extra time as a share of decoding, each turn by itself; the median of these shares."""
    sides = (comparison.measured[side] for side in ("with_trie", "without_trie", "decode"))
    return statistics.median((chosen - freely) / decoded for chosen, freely, decoded in zip(*sides, strict=True))


def _random_levels(trie: Trie, num_users: int, beam_width: int, num_codes: int) -> list[Level]:
    generator = torch.Generator().manual_seed(0)
    nodes = torch.zeros(num_users, 1, dtype=torch.int64, device=trie.device)
    scores = torch.zeros(num_users, 1, device=trie.device)
    levels = []
    for number in range(trie.num_levels):
        logits = torch.randn(*nodes.shape, num_codes, generator=generator).to(trie.device)
        levels.append(Level(nodes, scores, logits.log_softmax(-1)))
        step = best_children(trie, number, nodes, scores, levels[-1].log_probabilities, beam_width)
        nodes, scores = step.nodes, step.scores
    return levels


@torch.inference_mode()
def _choose(trie: Trie, levels: list[Level], beam_width: int) -> None:
    for _ in range(STEPS_PER_TURN):
        for number, level in enumerate(levels):
            best_children(trie, number, level.nodes, level.scores, level.log_probabilities, beam_width)


@torch.inference_mode()
def _choose_freely(levels: list[Level], beam_width: int) -> None:
    for _ in range(STEPS_PER_TURN):
        for level in levels:
            num_codes = level.log_probabilities.shape[-1]
            best = (level.log_probabilities + level.scores[..., None]).flatten(1).topk(beam_width, dim=1)
            _parent, _code = best.indices // num_codes, best.indices % num_codes


def _recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """On a GPU a search is a replayed graph, so what is compared with it is one as well."""
    if device.type != "cuda":
        return work
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP_RUNS):
            work()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
