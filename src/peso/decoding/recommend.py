"""From histories to lists of items: prompts in batches of similar length, beams back in the callers' order."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from peso.config import DecodingConfig
from peso.decoding.beam import BeamResult, beam_search
from peso.decoding.body import Body
from peso.decoding.branches import StockBody
from peso.decoding.code_scores import CodeScores
from peso.decoding.cuda_graphs import GraphedSearch, floor_power_of_two
from peso.decoding.exact import exact_search
from peso.decoding.memory import Memory
from peso.decoding.quick_body import quick_body
from peso.decoding.trie import Trie
from peso.lm.device import moved
from peso.lm.lora_linear import settled_weights
from peso.lm.quantisation import is_quantised
from peso.lm.sharding import is_sharded
from peso.lm.vocabulary import Vocabulary

_NO_ITEM = -1
_MAX_GRAPHED = 4  # recordings hold memory of the device


@dataclass(frozen=True, eq=False)
class RememberedItems:
    """What a memory knows of some users; see `peso.decoding.memory`.

    Attributes:
        items: per user, int64 [E], distinct.
        weights: per user, float64 [E], positive.
        strengths: kappa_m of each level, the weight of the model.
        prefix_power: rho, how much of that weight goes with what the model gives a prefix.
    """

    items: Sequence[NDArray[np.int64]]
    weights: Sequence[NDArray[np.float64]]
    strengths: tuple[float, ...]
    prefix_power: float

    def users(self, chosen: Sequence[int]) -> "RememberedItems":
        """What it knows of some of them."""
        items, weights = [self.items[user] for user in chosen], [self.weights[user] for user in chosen]
        return replace(self, items=items, weights=weights)

    def of(self, chosen: NDArray[np.int64]) -> Memory:
        """Of some users, as one batch."""
        items = functional.pad(_padded([self.items[number] for number in chosen], _NO_ITEM), (0, 1), value=_NO_ITEM)
        weights = torch.zeros(items.shape)
        for row, number in enumerate(chosen):
            weights[row, : len(self.weights[number])] = torch.from_numpy(self.weights[number])
        return Memory(items, weights, self.strengths, self.prefix_power)


class Recommender:
    """Decodes recommendations for many histories with one model."""

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary, config: DecodingConfig) -> None:
        """Keeps what every call needs.

        Args:
            model: causal LM, plain or with an adapter injected; after a change of its weights make a new object.
            vocabulary: the semantic-ID tokens.
            config: list length, width, normaliser and batch size.
        """
        self._model = model
        self._pad = vocabulary.pad_token_id
        self._level_token_ids = [torch.from_numpy(ids).to(model.device) for ids in vocabulary.level_token_ids]
        self._config = config
        self._graphs: OrderedDict[tuple[Trie, int], GraphedSearch] = OrderedDict()
        self._tries: WeakKeyDictionary[Trie, Trie] = WeakKeyDictionary()
        # At once: of a head in shards all processes gather the rows together, with histories or without.
        self._code_scores = CodeScores(model, self._level_token_ids, config.normaliser)

    def recommend(
        self,
        prompts: Sequence[NDArray[np.int64]],
        trie: Trie,
        excluded: Sequence[NDArray[np.int64]] | None = None,
        memory: RememberedItems | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best items for each history.

        Args:
            prompts: token ids of each history (see `SequenceBuilder.prompt`).
            trie: the items that may be named.
            excluded: items that must not be named, per history; they take up no beams.
            memory: what a memory knows of each history's user.

        Returns:
            Items, int64 [len(prompts), k], best first, -1 where the catalogue is smaller than k; and their
            log-probabilities in nats, float32, -inf there.
        """
        result = self.search(prompts, trie, excluded, memory)
        return result.items.numpy(), result.scores.numpy()

    def search(
        self,
        prompts: Sequence[NDArray[np.int64]],
        trie: Trie,
        excluded: Sequence[NDArray[np.int64]] | None = None,
        memory: RememberedItems | None = None,
        beam_width: int | None = None,
        num_recommendations: int | None = None,
    ) -> BeamResult:
        """As `recommend`, with the bound that tells which lists are certain; on the CPU.

        Args:
            prompts: see `recommend`.
            trie: see `recommend`.
            excluded: see `recommend`.
            memory: see `recommend`.
            beam_width: another than the configured one.
            num_recommendations: another length of the lists than the configured one.
        """
        width, k = beam_width or self.beam_width, num_recommendations or self.num_recommendations
        return self._search(prompts, trie, excluded, memory, width, k)

    @property
    def beam_width(self) -> int:
        """Beams kept per user, as configured."""
        return self._config.beam_width

    @property
    def num_recommendations(self) -> int:
        """Length k of the lists, as configured."""
        return self._config.num_recommendations

    def search_exactly(
        self,
        prompts: Sequence[NDArray[np.int64]],
        trie: Trie,
        excluded: Sequence[NDArray[np.int64]] | None = None,
        memory: RememberedItems | None = None,
    ) -> BeamResult:
        """As `search`, with every list certain: uncertain ones are searched again with more beams.

        A memory does not change why: what is mixed at a level are probabilities, so no item outscores its prefixes.
        """

        def search(users: Tensor, beam_width: int) -> BeamResult:
            chosen = users.tolist()
            left_out = None if excluded is None else [excluded[user] for user in chosen]
            of_them = None if memory is None else memory.users(chosen)
            return self._search(
                [prompts[user] for user in chosen], trie, left_out, of_them, beam_width, self.num_recommendations
            )

        return exact_search(search, len(prompts), self._config.beam_width)

    @cached_property
    def _body(self) -> Body:
        return quick_body(self._model)

    def _search(
        self,
        prompts: Sequence[NDArray[np.int64]],
        trie: Trie,
        excluded: Sequence[NDArray[np.int64]] | None,
        memory: RememberedItems | None,
        beam_width: int,
        k: int,
    ) -> BeamResult:
        items = torch.full((len(prompts), k), _NO_ITEM, dtype=torch.int64)
        scores = torch.full((len(prompts), k), float("-inf"))
        bound = torch.full((len(prompts),), float("-inf"))
        lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
        device = self._model.device
        if self._model.training:  # setting what is set goes through every module, a fifth of one user's answer
            self._model.eval()
        its_trie = self._on_device(trie)
        is_plain = not is_sharded(self._model) and not is_quantised(self._model.config)  # a graph gathers nothing
        is_configured = beam_width == self.beam_width  # an exact search has many widths, each used once
        is_graphed = device.type == "cuda" and memory is None and is_plain and is_configured
        graphs = self._graphed(its_trie, k) if is_graphed else None
        # A recorded graph holds the addresses of its weights, so nothing may be settled for one search only.
        settles = graphs is None and isinstance(self._body, StockBody)  # any other body has merged its own copies
        with settled_weights(self._model) if settles else nullcontext():
            for chosen in _batches(lengths, beam_width, self._config.batch_tokens, is_graphed):
                tokens = _padded([prompts[number] for number in chosen], self._pad)
                left_out = None if excluded is None else _padded([excluded[number] for number in chosen], _NO_ITEM)
                its_lengths = torch.from_numpy(lengths[chosen])
                if graphs is not None:
                    result = graphs(tokens, its_lengths, left_out)
                else:
                    remembered = None if memory is None else memory.of(chosen).to(device)
                    inputs = (moved(tokens, device), moved(its_lengths, device), its_trie, self._code_scores)
                    its_left_out = None if left_out is None else moved(left_out, device)
                    result = beam_search(self._body, *inputs, beam_width, k, its_left_out, remembered)
                where = torch.from_numpy(chosen)
                items[where], scores[where], bound[where] = result.items.cpu(), result.scores.cpu(), result.bound.cpu()
        return BeamResult(items, scores, bound)

    def _graphed(self, trie: Trie, k: int) -> GraphedSearch:
        key = (trie, k)
        if key not in self._graphs:
            self._graphs[key] = GraphedSearch(self._model, trie, self._code_scores, self.beam_width, k)
        self._graphs.move_to_end(key)
        while len(self._graphs) > _MAX_GRAPHED:
            self._graphs.popitem(last=False)
        return self._graphs[key]

    def _on_device(self, trie: Trie) -> Trie:
        if trie.device == self._model.device:
            return trie
        if trie not in self._tries:
            self._tries[trie] = trie.to(self._model.device)
        return self._tries[trie]


def _batches(
    lengths: NDArray[np.int64], beam_width: int, batch_tokens: int, is_graphed: bool
) -> Iterator[NDArray[np.int64]]:
    """Histories of similar length, the longest first, as many together as have room; for graphs a power of two."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        tokens_of_user = max(int(lengths[order[start]]), beam_width)
        num_users = max(1, batch_tokens // tokens_of_user)
        end = start + (floor_power_of_two(num_users) if is_graphed else num_users)
        yield order[start:end]
        start = end


def _padded(rows: Sequence[NDArray[np.int64]], filler: int) -> Tensor:
    table = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return torch.from_numpy(table)
