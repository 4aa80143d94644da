"""Small language models of several families in folders, with tokenizers trained here; nothing is downloaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

CORPUS = [
    "Items that a user chose, oldest first: the red guitar, the blue drum, a loud trumpet. Next:",
    "Below is a quiet violin and a small harp; the old cello is loud, the new flute is blue.",
    "A user who chose a red drum chose the golden horn next , and then the silver bell .",
] * 3
WORDS = "red blue loud quiet small old golden silver guitar drum trumpet violin harp cello flute horn bell".split()

_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
}


def byte_level(special: dict[str, str]) -> PreTrainedTokenizerFast:
    """Byte pairs over bytes, as GPT-2, Llama 3, Qwen and SmolLM have them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=sorted(set(special.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def sentence_piece(special: dict[str, str]) -> PreTrainedTokenizerFast:
    """Unigram pieces that carry their leading space, with a begin token put in front of every text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=sorted(set(special.values())), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    begin = special["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _llama(tokenizer: PreTrainedTokenizerFast, shape: dict[str, Any]) -> PretrainedConfig:
    return LlamaConfig(**_SHAPE | shape, vocab_size=len(tokenizer), tie_word_embeddings=False)


def _smollm(tokenizer: PreTrainedTokenizerFast, shape: dict[str, Any]) -> PretrainedConfig:
    return LlamaConfig(**_SHAPE | shape, vocab_size=len(tokenizer), tie_word_embeddings=True)


def _qwen3(tokenizer: PreTrainedTokenizerFast, shape: dict[str, Any]) -> PretrainedConfig:
    """More rows than tokens, as released Qwen models have."""
    return Qwen3Config(**_SHAPE | shape, head_dim=16, vocab_size=len(tokenizer) + 10, tie_word_embeddings=True)


def _gemma(tokenizer: PreTrainedTokenizerFast, shape: dict[str, Any]) -> PretrainedConfig:
    """Logits and attention under caps, windows in every other layer."""
    return Gemma2Config(
        **_SHAPE | shape, head_dim=16, query_pre_attn_scalar=16, vocab_size=len(tokenizer), sliding_window=256,
        final_logit_softcapping=2.0, attn_logit_softcapping=1.0,
    )  # fmt: skip


def _gemma3(tokenizer: PreTrainedTokenizerFast, shape: dict[str, Any]) -> PretrainedConfig:
    return Gemma3TextConfig(
        **_SHAPE | shape, head_dim=16, query_pre_attn_scalar=16, vocab_size=len(tokenizer), sliding_window=256,
    )  # fmt: skip


def _gpt2(tokenizer: PreTrainedTokenizerFast, shape: dict[str, Any]) -> PretrainedConfig:
    return GPT2Config(
        **{"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512} | shape, vocab_size=len(tokenizer)
    )


_ENDOFTEXT = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
_PIECES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}

FAMILIES: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], Callable[..., PretrainedConfig]]] = {
    "llama": (lambda: byte_level({"bos_token": "<|begin|>", "eos_token": "<|end|>"}), _llama),
    "llama sentencepiece": (lambda: sentence_piece(_PIECES), _llama),
    "smollm": (lambda: byte_level(_ENDOFTEXT), _smollm),
    "qwen3": (lambda: byte_level({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}), _qwen3),
    "gemma": (lambda: sentence_piece(_PIECES), _gemma),
    "gemma3": (lambda: sentence_piece(_PIECES), _gemma3),
    "gpt2": (lambda: byte_level(_ENDOFTEXT), _gpt2),
}
"""Tied and untied heads, with and without begin and pad tokens, byte-level and pieces with spaces."""


def write_language_model(
    folder: Path, family: str, dtype: torch.dtype = torch.float32, seed: int = 0, shape: dict[str, Any] | None = None
) -> Path:
    """An untrained model of a family and its tokenizer in the standard layout, weights spread for scores to differ."""
    build_tokenizer, build_config = FAMILIES[family]
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(build_config(tokenizer, shape or {}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.2)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
