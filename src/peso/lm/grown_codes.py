"""A model whose codes have become more: new tokens, each with rows mixed from those of the codes it lies nearest to.

Shapes: V tokens before, K codes of the last level before, G added, R rows that an adapter trains, D width.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peso.lm.vocabulary import add_code_tokens
from peso.semantic_ids.catalogue import code_token
from peso.semantic_ids.frozen import Vectors

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, eq=False)
class Growth:
    """More codes at the last level.

    Attributes:
        level_sizes: codes per level afterwards.
        weights: what each new code has of the old ones, float32 [G, K], rows sum to 1.
    """

    level_sizes: tuple[int, ...]
    weights: Vectors

    def tokens(self) -> tuple[list[str], list[str]]:
        """The last level's old tokens and its new ones."""
        last, (num_new, num_old) = len(self.level_sizes) - 1, self.weights.shape
        names = [code_token(last, code) for code in range(num_old + num_new)]
        return names[:num_old], names[num_old:]


@torch.no_grad()
def grow_backbone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, growth: Growth) -> None:
    """Gives a backbone and its tokenizer the new tokens, with rows mixed from its own.

    Args:
        model: plain, no adapter on it; changed in place, as is the tokenizer.
        tokenizer: knows the codes before.
        growth: what is new.
    """
    old, new = growth.tokens()
    add_code_tokens(tokenizer, growth.level_sizes)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, nn.Embedding)
    if len(tokenizer) > embedding.num_embeddings:  # many models have spare rows
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    old_ids, new_ids = (torch.tensor(_ids(tokenizer, tokens)) for tokens in (old, new))
    for table in [embedding.weight] if head.weight is embedding.weight else [embedding.weight, head.weight]:
        assert isinstance(table, Tensor)
        table[new_ids] = _mixed(table[old_ids], growth).to(table.dtype)


def grow_adapter(source: Path, target: Path, tokenizer: PreTrainedTokenizerBase, growth: Growth) -> None:
    """Writes an adapter that also trains the new tokens' rows, mixed from the rows it has.

    Args:
        source: folder of an adapter in PEFT's layout.
        target: an existing folder.
        tokenizer: grown.
        growth: what is new.
    """
    old, new = growth.tokens()
    old_ids, new_ids = (_ids(tokenizer, tokens) for tokens in (old, new))
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = PeftConfig.from_pretrained(str(source))
    assert isinstance(config, LoraConfig)
    trained = config.trainable_token_indices
    assert trained is None or isinstance(trained, dict)
    state = load_file(source / _WEIGHTS)
    for name in [name for name in state if ".lora_" not in name]:
        rows_RD = state[name]
        if trained is None:  # whole matrices, row by token
            whole = rows_RD.new_zeros(max(len(rows_RD), *(number + 1 for number in new_ids)), rows_RD.shape[1])
            whole[: len(rows_RD)] = rows_RD
            whole[new_ids] = _mixed(rows_RD[old_ids], growth).to(whole.dtype)
            state[name] = whole
        else:
            places = {token: place for place, token in enumerate(next(iter(trained.values())))}
            own = rows_RD[[places[token] for token in old_ids]]
            state[name] = torch.cat([rows_RD, _mixed(own, growth).to(rows_RD.dtype)])
    if trained is not None:
        config.trainable_token_indices = {table: [*indices, *new_ids] for table, indices in trained.items()}
    save_file(state, target / _WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(str(target))


def _ids(tokenizer: PreTrainedTokenizerBase, tokens: list[str]) -> list[int]:
    found = tokenizer.convert_tokens_to_ids(tokens)
    assert isinstance(found, list)
    return found


def _mixed(rows_KD: Tensor, growth: Growth) -> Tensor:
    return torch.from_numpy(growth.weights).to(rows_KD.device) @ rows_KD.float()
