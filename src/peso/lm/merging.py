"""An adapter put into the weights of its backbone for good."""

import warnings

from peft import PeftModel
from transformers import PreTrainedModel

from peso.lm.folding import forget_folded
from peso.lm.low_rank import read_low_rank, write_low_rank


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """The backbone with A, B and trained rows in its weights, in float32.

    A tied pair of embedding and head that trained as two is two matrices from then on.

    Args:
        model: a backbone with one adapter as `load_adapter` gives it; used up.
    """
    model.float()  # sums are rounded once, if at all: when the result is stored
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tied.*|.*tie_word_embeddings=True.*")
        merged = model.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    forget_folded(merged)
    return merged


def merge_token_rows(model: PeftModel) -> PreTrainedModel:
    """The backbone with the trained rows in its embedding and head, without A and B, in float32.

    Args:
        model: as of `merge_adapter`; used up.
    """
    write_low_rank(model, read_low_rank(model).scaled(0.0))
    return merge_adapter(model)
