"""What the embedding and head rows of tokens that a loaded backbone has never met start from.

Shapes: V tokens known before, R new tokens, D width, N items, M codes per item.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peso.data.dataset import IntArray
from peso.errors import ConfigError
from peso.lm.vocabulary import build_vocabulary


@dataclass(frozen=True, eq=False)
class TitledItems:
    """Items whose titles describe their codes.

    Attributes:
        titles: of each item, length N; items without one are left out.
        codes: int64 [N, M].
    """

    titles: Sequence[str]
    codes: IntArray


@torch.no_grad()
def start_from_mean(model: PreTrainedModel, token_ids: Sequence[int], num_known: int) -> None:
    """Sets new rows of embedding and head to the mean of the known ones.

    Args:
        model: has rows for every token.
        token_ids: the new tokens; a backbone may have held unused rows for them.
        num_known: V; tokens below it are known.
    """
    new = torch.tensor(list(token_ids))
    for weight in _tables(model):
        weight[new] = weight[:num_known].float().mean(0).to(weight.dtype)


@torch.no_grad()
def start_from_titles(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: TitledItems, level_sizes: Sequence[int]
) -> None:
    """Sets each code's row to the mean over the titles of its items, a title being the mean of its tokens' rows.

    Codes without a titled item keep their rows. Codes that more items share come out nearer to the mean of all.

    Args:
        model: has rows for every token.
        tokenizer: that of the model, with the semantic-ID tokens.
        items: whose titles to read.
        level_sizes: codes per level, length M.

    Raises:
        ConfigError: no item has a title.
    """
    titled = [number for number, title in enumerate(items.titles) if title.strip()]
    tokens = [tokenizer.encode(items.titles[number], add_special_tokens=False) for number in titled]
    if not any(tokens):
        raise ConfigError(
            'backbone.new_token_rows "title": no item of block 0 has a title; use "mean", or import titles.'
        )
    kept = [place for place, ids in enumerate(tokens) if ids]
    words = torch.tensor([token for place in kept for token in tokens[place]])
    starts = torch.tensor(np.cumsum([0, *(len(tokens[place]) for place in kept[:-1])]))
    vocabulary = build_vocabulary(tokenizer, items.codes[[titled[place] for place in kept]], level_sizes)
    token_NM = torch.from_numpy(vocabulary.item_token_ids)
    for weight in _tables(model):
        titles_ND = functional.embedding_bag(
            words.to(weight.device), weight.float(), starts.to(weight.device), mode="mean"
        ).cpu()
        for token_N in token_NM.T:
            present_R, number_N, counts_R = token_N.unique(return_inverse=True, return_counts=True)
            sums_RD = torch.zeros(len(present_R), titles_ND.shape[1]).index_add_(0, number_N, titles_ND)
            weight[present_R.to(weight.device)] = (sums_RD / counts_R[:, None]).to(weight)


def _tables(model: PreTrainedModel) -> list[Tensor]:
    """The embedding, and the head where it has a matrix of its own."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, nn.Embedding) and isinstance(head, nn.Linear)
    return [embedding.weight] if head.weight is embedding.weight else [embedding.weight, head.weight]
