"""Semantic-ID tokens inside a language model's vocabulary.

Level m's code c is one token, written `<a_51>` for level 0, code 51 (levels beyond `z` are written `<27_51>`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from peso.semantic_ids.catalogue import code_token

PAD_TOKEN, BOS_TOKEN, EOS_TOKEN, UNKNOWN_TOKEN = "<pad>", "<s>", "</s>", "<unk>"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Where each code sits in the model's vocabulary.

    Attributes:
        level_token_ids: per level, int64 [C_m], the token id of each code.
        item_token_ids: int64 [N, M], the tokens of each item.
        pad_token_id: fills rows up to equal length; never attended to and never a label.
        end_token_id: what may end an answer; None where the tokenizer has no such token.
    """

    level_token_ids: tuple[NDArray[np.int64], ...]
    item_token_ids: NDArray[np.int64]
    pad_token_id: int
    end_token_id: int | None = None

    @property
    def num_levels(self) -> int:
        """Tokens per item M."""
        return len(self.level_token_ids)

    @property
    def all_token_ids(self) -> list[int]:
        """Every semantic-ID token, ascending: the rows that train in every method."""
        return sorted(int(token) for level in self.level_token_ids for token in level)


def build_tokenizer(level_sizes: Sequence[int], words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the given words and all semantic-ID tokens, for the embedded backbone.

    Args:
        level_sizes: codes per level.
        words: words of the prompt template; anything else reads as unknown.
    """
    specials = [PAD_TOKEN, BOS_TOKEN, EOS_TOKEN, UNKNOWN_TOKEN]
    entries = specials + sorted(set(words))
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(entries)}, unk_token=UNKNOWN_TOKEN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        unk_token=UNKNOWN_TOKEN,
    )
    add_code_tokens(fast, level_sizes)
    return fast


def add_code_tokens(tokenizer: PreTrainedTokenizerBase, level_sizes: Sequence[int]) -> int:
    """Adds the tokens of every code to a tokenizer (those it already has are kept).

    Returns:
        The number of tokens that were new; the model's embedding must have room for `len(tokenizer)` rows.
    """
    tokens = [code_token(level, code) for level, size in enumerate(level_sizes) for code in range(size)]
    added: int = tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
    return added


def build_vocabulary(
    tokenizer: PreTrainedTokenizerBase, codes: NDArray[np.int64], level_sizes: Sequence[int]
) -> Vocabulary:
    """Looks up every code's token.

    Args:
        tokenizer: one that went through `add_code_tokens` with these level sizes.
        codes: int64 [N, M], each item's unique codes.
        level_sizes: codes per level, length M.
    """
    level_token_ids = tuple(
        np.asarray(tokenizer.convert_tokens_to_ids([code_token(level, code) for code in range(size)]), dtype=np.int64)
        for level, size in enumerate(level_sizes)
    )
    item_token_ids = np.stack([level_token_ids[level][codes[:, level]] for level in range(len(level_sizes))], axis=1)
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    # Nobody sees what fills rows, so any token does.
    return Vocabulary(level_token_ids, item_token_ids, 0 if pad is None else int(pad), end)
