"""Texts that tie titles to semantic IDs, for a language model that knows words: two per item, one for each way."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peso.errors import ConfigError
from peso.lm.backbone import body_of
from peso.lm.head import logit_cap
from peso.lm.likelihood import cross_entropy
from peso.lm.new_tokens import TitledItems
from peso.lm.token_rows import head_rows
from peso.lm.vocabulary import Vocabulary
from peso.semantic_ids.catalogue import code_token

_TO_CODES = 'The item called "{title}" is:'
_TO_TITLE = "{codes} is called:"
_LONGEST_TITLE = 160  # characters; release titles go on for paragraphs


@dataclass(frozen=True)
class AlignmentText:
    """A prompt and what is to follow it.

    Attributes:
        tokens: of both, with the tokenizer's begin and end token where it has them.
        num_prompt: how many of them are the prompt.
    """

    tokens: tuple[int, ...]
    num_prompt: int


def alignment_texts(
    tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, items: TitledItems
) -> list[AlignmentText]:
    """For each item with a title, its codes behind the title, and the title behind the codes.

    Args:
        tokenizer: that of the model, with the semantic-ID tokens.
        vocabulary: each item's tokens.
        items: which items have a title.

    Raises:
        ConfigError: none has.
    """
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

    def encoded(text: str) -> list[int]:
        return begin + tokenizer.encode(text, add_special_tokens=False)

    texts = []
    for number, title in enumerate(items.titles):
        if title.strip():
            title = title.strip()[:_LONGEST_TITLE]
            prompt = encoded(_TO_CODES.format(title=title))
            texts.append(AlignmentText((*prompt, *vocabulary.item_token_ids[number].tolist(), *end), len(prompt)))
            codes = "".join(code_token(level, int(code)) for level, code in enumerate(items.codes[number]))
            prompt = encoded(_TO_TITLE.format(codes=codes))
            whole = encoded(f"{_TO_TITLE.format(codes=codes)} {title}")
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False)))
            texts.append(AlignmentText((*whole, *end), shared))
    if not texts:
        raise ConfigError("alignment.epochs: no item of block 0 has a title; set it to 0, or import titles.")
    return texts


def alignment_losses(model: PreTrainedModel, texts: Sequence[AlignmentText], pad_token_id: int) -> Tensor:
    """-log p of each response token over the whole vocabulary.

    Args:
        model: causal LM, plain or with an adapter injected.
        texts: of one pass.
        pad_token_id: fills rows on the right, where no real token looks.

    Returns:
        float32 [number of response tokens of all texts], in nats, text after text.
    """
    length = max(len(text.tokens) for text in texts)
    ids = torch.tensor([[*text.tokens, *[pad_token_id] * (length - len(text.tokens))] for text in texts])
    ids = ids.to(model.device)
    places = [
        row * length + place for row, t in enumerate(texts) for place in range(t.num_prompt - 1, len(t.tokens) - 1)
    ]
    at = torch.tensor(places, device=model.device)
    states = body_of(model)(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)[at]
    return cross_entropy(states, head_rows(model), ids.flatten()[at + 1], logit_cap(model))
