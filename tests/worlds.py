"""Small data sets, catalogues and models that tests share."""

from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from peso.config import BackboneConfig
from peso.data.dataset import Dataset, IntArray
from peso.data.storage import save_dataset
from peso.lm.backbone import build_backbone
from peso.lm.sequences import SequenceBuilder
from peso.lm.templates import build_template
from peso.lm.vocabulary import Vocabulary, build_vocabulary
from peso.semantic_ids.catalogue import build_semantic_ids
from peso.types import TemplateName

LEVEL_SIZES = (4, 5, 6)
TINY_BACKBONE = """
[backbone]
hidden_size = 16
num_layers = 1
num_heads = 2
intermediate_size = 32
epochs = 1
"""
"""A section of a configuration file."""
TINY_CONFIG = (
    TINY_BACKBONE
    + """
[adapter]
r = 2
lora_alpha = 4
[training]
epochs = 2
rate_factors = [1.0]
[decoding]
beam_width = 10
"""
)
"""A configuration file of runs that take seconds."""


def tiny_dataset(num_users: int = 12, num_items: int = 40, num_blocks: int = 3, seed: int = 0) -> Dataset:
    """Random users with three to six events in some of the blocks; everyone is in block 0."""
    generator = np.random.default_rng(seed)
    users, items, blocks = [], [], []
    for user in range(num_users):
        wanted = generator.permutation(num_items)
        taken = 0
        for block in range(num_blocks):
            if block and generator.random() < 0.3:
                continue
            count = int(generator.integers(3, 7))
            users += [user] * count
            items += wanted[taken : taken + count].tolist()
            blocks += [block] * count
            taken += count
    return Dataset(
        [f"user {number}" for number in range(num_users)],
        [f"item {number}" for number in range(num_items)],
        [f"title {number}" for number in range(num_items)],
        np.array(users),
        np.array(items),
        np.array(blocks),
        num_blocks,
        "tiny",
    )


def tiny_codes(num_items: int = 40, level_sizes: tuple[int, ...] = LEVEL_SIZES, seed: int = 0) -> IntArray:
    """Distinct random codes, int64 [num_items, M]."""
    space = int(np.prod(level_sizes))
    chosen = np.random.default_rng(seed).permutation(space)[:num_items]
    return np.stack(np.unravel_index(chosen, level_sizes), axis=1).astype(np.int64)


def fill_workspace(folder: Path, dataset: Dataset) -> Dataset:
    """Writes a data set and random codes for its 40 items into a workspace."""
    save_dataset(dataset, folder / "data")
    ids = build_semantic_ids(dataset, tiny_codes(), LEVEL_SIZES)
    ids.save(folder / "data" / "semantic_ids", dataset.item_ids)
    return dataset


def tiny_backbone(
    level_sizes: tuple[int, ...] = LEVEL_SIZES, seed: int = 0, spread: float = 0.3
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """An untrained two-layer Llama with weights spread enough for scores to differ."""
    config = BackboneConfig(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24)
    model, tokenizer = build_backbone(config, level_sizes, seed)
    assert isinstance(model, LlamaForCausalLM)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, spread, generator=generator)
    return model.eval(), tokenizer


def tiny_builder(
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    codes: IntArray,
    template: TemplateName = "sid",
    level_sizes: tuple[int, ...] = LEVEL_SIZES,
) -> tuple[SequenceBuilder, Vocabulary]:
    """The builder and vocabulary of a data set."""
    vocabulary = build_vocabulary(tokenizer, codes, level_sizes)
    return SequenceBuilder(dataset, codes, vocabulary, build_template(template, tokenizer)), vocabulary
