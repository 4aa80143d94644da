"""The causal language model under the adapter: a small Llama from a config, or any folder or hub name.

Shapes: B batch, L length, D width.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from peso.config import BackboneConfig
from peso.errors import ConfigError
from peso.lm.new_tokens import TitledItems, start_from_mean, start_from_titles
from peso.lm.quantisation import check_quantisation, is_quantised, loading_options
from peso.lm.templates import template_words
from peso.lm.vocabulary import add_code_tokens, build_tokenizer
from peso.seeding import derive_seed
from peso.types import Quantisation

EMBEDDED = "embedded"
_MAX_POSITIONS = 4096
_INITIALIZER_RANGE = 0.05  # few steps and narrow layers: the usual 0.02 learns more slowly


def build_backbone(
    config: BackboneConfig, level_sizes: Sequence[int], seed: int, titled: TitledItems | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The backbone and its tokenizer, with a token for every code.

    Args:
        config: which backbone.
        level_sizes: codes per level.
        seed: decides the embedded backbone's first weights.
        titled: items whose titles may describe their codes, for `config.new_token_rows` "title".

    Raises:
        ConfigError: `config.source` names no loadable causal language model, titles are wanted and there are none, or
            few bits without CUDA.
        InstallationError: few bits are wanted without the library for them.
    """
    torch.manual_seed(derive_seed(seed, "backbone"))
    if config.source == EMBEDDED:
        words = build_tokenizer(level_sizes, template_words())
        return LlamaForCausalLM(_embedded_config(config, words)), words
    assert titled is not None or config.new_token_rows == "mean", "titles are wanted and none were given"
    model, tokenizer = _load_backbone(config.source, config.quantisation)
    _add_codes(model, tokenizer, level_sizes, titled if config.new_token_rows == "title" else None)
    return model, tokenizer


def _embedded_config(config: BackboneConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        initializer_range=_INITIALIZER_RANGE,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _load_backbone(source: str, quantisation: Quantisation) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    check_quantisation(quantisation)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", **loading_options(quantisation))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"backbone.source {source!r} could not be loaded as a causal language model ({first_line(error)}); "
            f'give a folder with config.json, weights and tokenizer, a hub name, or "{EMBEDDED}".'
        ) from None
    return model, tokenizer


def first_line(error: Exception) -> str:
    """The first line of what a library says, which may go on for pages."""
    return str(error).strip().splitlines()[0]


def _add_codes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    level_sizes: Sequence[int],
    titled: TitledItems | None,
) -> None:
    """Gives a loaded model the semantic-ID tokens that it lacks, with rows to start from."""
    num_known = len(tokenizer)
    if not add_code_tokens(tokenizer, level_sizes):
        return
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    if len(tokenizer) > embedding.num_embeddings:  # many models have spare rows
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    start_from_mean(model, range(num_known, len(tokenizer)), num_known)
    if titled is not None:
        start_from_titles(model, tokenizer, titled, level_sizes)


def save_backbone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes weights (safetensors), config and tokenizer in the standard layout."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_weights(folder: Path) -> PreTrainedModel:
    """The model of a folder in the standard layout, in the precision it was saved in.

    Its weights are mapped, not read: each page of the file takes memory once it is used.

    Raises:
        ConfigError: it is stored in few bits, and there is no CUDA device.
        InstallationError: the same without the library for them.
    """
    if is_quantised(AutoConfig.from_pretrained(folder)):
        check_quantisation("nf4")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder in the standard layout."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def body_of(model: PreTrainedModel) -> nn.Module:
    """The decoder stack without the head: returns hidden states [B, L, D] after the final norm."""
    body = getattr(model, model.base_model_prefix)
    assert isinstance(body, nn.Module)
    return body
