"""Beam search as recorded CUDA graphs: one per shape of a batch, replayed without a kernel launch from Python.

Batches are padded to a few shapes, so that few graphs are recorded: lengths to a multiple, users and left-out items
to a power of two. A graph reads fixed buffers on the device; inputs go there from pinned memory.

Shapes: B users, L history tokens, E left-out items per user.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from peso.decoding.beam import BeamResult, beam_search
from peso.decoding.branches import StockBody
from peso.decoding.code_scores import CodeScores
from peso.decoding.trie import Trie

_LENGTH_MULTIPLE = 16
_WARM_UP_RUNS = 2  # libraries allocate at first use, which a recording cannot hold


@dataclass(frozen=True, eq=False)
class _Recording:
    """A graph with the buffers that it reads and writes, on the device, and the pinned ones that feed them."""

    graph: torch.cuda.CUDAGraph
    pinned: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    result: BeamResult


class GraphedSearch:
    """`beam_search` of one model and catalogue on a CUDA device, recorded once per shape."""

    def __init__(
        self, model: PreTrainedModel, trie: Trie, code_scores: CodeScores, beam_width: int, num_results: int
    ) -> None:
        """Keeps what every search shares; all of it must stay as it is, for graphs hold its addresses.

        Args:
            model: causal LM in eval mode on a CUDA device.
            trie: the items that may be named, on that device.
            code_scores: the model's head and the normaliser.
            beam_width: beams kept per user.
            num_results: list length k.
        """
        self._body, self._device = StockBody(model), model.device
        self._trie = trie
        self._code_scores = code_scores
        self._beam_width = beam_width
        self._num_results = num_results
        self._recordings: dict[tuple[int, int, int], _Recording] = {}
        # Graphs never run side by side, and results are copied away at once, so all may work in the same memory.
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, prompts: Tensor, lengths: Tensor, excluded: Tensor | None) -> BeamResult:
        """As `beam_search`, with inputs and result on the CPU."""
        num_users = len(prompts)
        inputs = padded_inputs(prompts, lengths, excluded)
        shape = (*inputs[0].shape, inputs[2].shape[1])
        if shape not in self._recordings:
            self._recordings[shape] = self._record(inputs)
        recording = self._recordings[shape]
        for pinned, buffer, values in zip(recording.pinned, recording.inputs, inputs, strict=True):
            pinned.copy_(values)
            buffer.copy_(pinned, non_blocking=True)
        recording.graph.replay()
        result = recording.result
        # Copies to the CPU wait for the replay, so the pinned buffers are free again after them.
        return BeamResult(*(part[:num_users].cpu() for part in (result.items, result.scores, result.bound)))

    def _record(self, inputs: tuple[Tensor, Tensor, Tensor]) -> _Recording:
        device = self._device
        buffers = tuple(values.to(device) for values in inputs)
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                self._run(*buffers)
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = self._run(*buffers)
        return _Recording(graph, tuple(values.pin_memory() for values in inputs), buffers, result)

    def _run(self, prompts: Tensor, lengths: Tensor, excluded: Tensor) -> BeamResult:
        left_out = excluded if excluded.shape[1] else None
        return beam_search(
            self._body, prompts, lengths, self._trie, self._code_scores, self._beam_width, self._num_results, left_out
        )


def padded_inputs(prompts: Tensor, lengths: Tensor, excluded: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Pads a batch to one of few shapes; added users read one token and are to be cut off again.

    Args:
        prompts: int64 [B, L].
        lengths: int64 [B].
        excluded: int64 [B, E] filled with -1, or None for none.

    Returns:
        int64 [B', L'], [B'] and [B', E'] with B' and E' powers of two (E' is 0 for none), L' a multiple of 16.
    """
    if excluded is None:
        excluded = torch.empty((len(prompts), 0), dtype=torch.int64)
    more_users = _power_of_two(len(prompts)) - len(prompts)
    more_tokens = -prompts.shape[1] % _LENGTH_MULTIPLE
    more_items = (_power_of_two(excluded.shape[1]) if excluded.shape[1] else 0) - excluded.shape[1]
    return (
        functional.pad(prompts, (0, more_tokens, 0, more_users)),
        functional.pad(lengths, (0, more_users), value=1),
        functional.pad(excluded, (0, more_items, 0, more_users), value=-1),
    )


def floor_power_of_two(number: int) -> int:
    """The greatest power of two that is not above a positive number."""
    return 1 << (number.bit_length() - 1)


def _power_of_two(number: int) -> int:
    """The least power of two that is not below a positive number."""
    return 1 << (number - 1).bit_length()
