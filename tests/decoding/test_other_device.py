"""A search on a device other than the CPU: PyTorch's meta device stands in, where sizes and places are real."""

from typing import Any

import numpy as np
import pytest
import torch

from peso.config import DecodingConfig
from peso.decoding import recommend
from peso.decoding.beam import BeamResult, beam_search
from peso.decoding.recommend import Recommender, RememberedItems
from peso.decoding.trie import build_trie
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize("excludes", [False, True])
def test_all_of_a_search_is_where_the_model_is(
    remembers: bool, excludes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []

    def search(*arguments: Any) -> BeamResult:
        result = beam_search(*arguments)
        found = (result.items, result.scores, result.bound)
        assert {part.device.type for part in found} == {"meta"}
        searched.append(len(result.items))
        return BeamResult(*(torch.zeros(part.shape, dtype=part.dtype) for part in found))

    monkeypatch.setattr(recommend, "beam_search", search)
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, tiny_dataset(), tiny_codes())
    prompts = [builder.prompt(np.array(history)) for history in ([3, 7, 1], [5])]
    torch.nn.Module.to(model, "meta")
    recommender = Recommender(model.eval(), vocabulary, DecodingConfig(beam_width=4, num_recommendations=3))
    remembered = [np.array([1, 2]), np.array([4])]
    weights = [np.array([1.0, 2.0]), np.array([0.5])]
    memory = RememberedItems(remembered, weights, (1.0,) * tiny_codes().shape[1], 0.3) if remembers else None
    trie = build_trie(tiny_codes(), np.arange(40))
    for _ in range(2):
        items, scores = recommender.recommend(prompts, trie, remembered if excludes else None, memory)
        assert items.shape == scores.shape == (2, 3)
    assert sum(searched) == 4
