"""The LoRA adapter in PEFT's standard format, and the rows of embedding and head that train with it.

Rows are those of the semantic-ID tokens, as PEFT's trainable token indices, or both whole matrices, as its modules to
save.
"""

import warnings
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from peso.config import AdapterConfig
from peso.errors import ConfigError
from peso.lm.backbone import body_of
from peso.lm.lora_linear import merge_products
from peso.lm.low_rank import LowRank, adapted_layers
from peso.lm.past_adapters import whole_update
from peso.lm.token_rows import read_rows_in_place
from peso.lm.whole_tables import copied_parameters, widen_copies
from peso.seeding import derive_seed
from peso.types import Precision

_ADAPTER = "default"
_TOKEN_ROWS = "trainable_tokens_delta"
_DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_UNTIED = ".*tie_word_embeddings=True.*"

CARRIED = "carried"
"""Folder in that of an adapter: what the next block starts from, where that is not the adapter itself."""

ALL_LINEAR = "all-linear"
"""PEFT's name for every linear layer but the head."""


def attach_adapter(model: PreTrainedModel, config: AdapterConfig, token_ids: Sequence[int], seed: int) -> PeftModel:
    """Adds a fresh LoRA adapter (A Kaiming uniform, B zero) and trainable rows of embedding and head.

    Args:
        model: the backbone; its own weights stop training.
        config: rank, scale, where the adapter sits, and which rows train along.
        token_ids: the tokens whose input and output rows train, unless all do.
        seed: decides A.

    Raises:
        ConfigError: `config.target_modules` names no linear layer of this backbone.
    """
    torch.manual_seed(derive_seed(seed, "adapter"))
    target_modules = _target_modules(model, config)
    embedding, head = (
        _last_part(_name_of(model, module)) for module in (model.get_input_embeddings(), model.get_output_embeddings())
    )
    is_tied = model.config.get_text_config().tie_word_embeddings
    tables = [embedding] if is_tied and config.token_rows == "codes" else [embedding, head]
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=target_modules,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        trainable_token_indices={name: list(token_ids) for name in tables} if config.token_rows == "codes" else None,
        modules_to_save=tables if config.token_rows == "all" else None,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_UNTIED)  # on purpose: the released code trains a tied pair as two
        peft_model = get_peft_model(model, lora)
    assert isinstance(peft_model, PeftModel)
    return _quickened(peft_model)


def _target_modules(model: PreTrainedModel, config: AdapterConfig) -> list[str]:
    """The names of the layers to adapt, the last part of each."""
    layers = {
        _last_part(name) for name, module in body_of(model).named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    if config.target_modules == (ALL_LINEAR,):
        return sorted(layers)
    missing = [name for name in config.target_modules if name not in layers]
    if missing:
        raise ConfigError(
            f"adapter.target_modules: this backbone has no layer named {', '.join(map(repr, missing))}; linear layers "
            f'of {type(model).__name__} are {", ".join(sorted(layers))}, and "{ALL_LINEAR}" alone names them all.'
        )
    return list(config.target_modules)


def _quickened(model: PeftModel) -> PeftModel:
    """The same function of the same parameters, computed with fewer and smaller products."""
    merge_products(model)
    read_rows_in_place(model)
    widen_copies(model)
    return model


def _name_of(model: PreTrainedModel, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


def _last_part(name: str) -> str:
    return name.split(".")[-1]


def lora_parameters(model: PeftModel) -> list[tuple[str, nn.Parameter]]:
    """All A and B matrices, named such as `layers.0.self_attn.q_proj.lora_A`: the groups of the proximal term."""
    return [(_short_name(name), p) for name, p in model.named_parameters() if p.requires_grad and ".lora_" in name]


def token_row_parameters(model: PeftModel) -> list[tuple[str, nn.Parameter]]:
    """The rows that train, named such as `embed_tokens.rows` and `lm_head.rows`."""
    return [(name, rows) for name, rows in _token_rows(model) if rows.requires_grad]


def _token_rows(model: PeftModel) -> list[tuple[str, nn.Parameter]]:
    """The adapter's rows, whether they train or not."""
    rows = [(_short_name(name), p) for name, p in model.named_parameters() if _TOKEN_ROWS in name]
    return rows + [(f"{_short_name(name)}.rows", p) for name, p in copied_parameters(model)]


def _short_name(name: str) -> str:
    name = name.removeprefix("base_model.model.").removeprefix("model.")
    name = name.replace(f".token_adapter.{_TOKEN_ROWS}.{_ADAPTER}", ".rows")
    return name.replace(f".{_ADAPTER}.weight", "")


def save_adapter(model: PeftModel, folder: Path, precision: Precision = "float32") -> int:
    """Writes adapter_config.json and adapter_model.safetensors, readable by `PeftModel.from_pretrained`.

    Past adapters under the active one are written with it, as one adapter of the summed rank.

    Args:
        model: what to save.
        folder: an existing directory.
        precision: of the stored numbers.

    Returns:
        Size of the weights file in bytes.
    """
    whole, dtype = whole_update(model), _DTYPES[precision]
    state = {
        name: tensor.detach().to(dtype, copy=True).contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    for layer in adapted_layers(model):
        for key, matrix in (("lora_A", whole.a[layer]), ("lora_B", whole.b[layer])):
            stored = next(name for name in state if name.endswith(f"{layer}.{key}.weight"))
            state[stored] = matrix.to(dtype).contiguous()
    weights = folder / "adapter_model.safetensors"
    save_file(state, weights, metadata={"format": "pt"})
    config = copy(model.peft_config[_ADAPTER])
    assert isinstance(config, LoraConfig)
    config.inference_mode = True
    config.lora_alpha = config.lora_alpha * whole.rank // config.r
    config.r = whole.rank
    config.save_pretrained(str(folder))
    return weights.stat().st_size


def carried_of(folder: Path) -> Path:
    """The folder of what the next block starts from, beside the saved adapter that recommends or that one itself."""
    carried = folder / CARRIED
    return carried if carried.exists() else folder


def stored_update(folder: Path, rank: int) -> LowRank:
    """The last adapter of those that `save_adapter` wrote as one: the one that trained, in float32.

    Args:
        folder: of a saved adapter.
        rank: of the adapter that trained.
    """
    state = load_file(folder / "adapter_model.safetensors")
    matrices: dict[str, dict[str, torch.Tensor]] = {"lora_A": {}, "lora_B": {}}
    for name, tensor in state.items():
        layer, _, kind = _short_name(name).removesuffix(".weight").rpartition(".")
        if kind in matrices:
            matrices[kind][layer] = tensor.float()
    return LowRank(matrices["lora_A"], matrices["lora_B"]).last(rank)


def stored_token_rows(folder: Path) -> dict[str, torch.Tensor]:
    """The rows that `save_adapter` wrote, in float32, by the names of `token_row_parameters`."""
    found = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        short = _short_name(name)
        if short.endswith(f".token_adapter.{_TOKEN_ROWS}"):
            found[short.removesuffix(f".token_adapter.{_TOKEN_ROWS}") + ".rows"] = tensor.float()
        elif ".lora_" not in short:
            found[short.removesuffix(".weight") + ".rows"] = tensor.float()
    return found


def read_token_rows(model: PeftModel) -> dict[str, torch.Tensor]:
    """Copies of the trained rows, by the names of `token_row_parameters`."""
    return {name: rows.detach().clone() for name, rows in _token_rows(model)}


@torch.no_grad()
def write_token_rows(model: PeftModel, rows: dict[str, torch.Tensor]) -> None:
    """Overwrites the trained rows with what `read_token_rows` returned."""
    for name, parameter in _token_rows(model):
        parameter.copy_(rows[name])


def load_adapter(model: PreTrainedModel, folder: Path, is_trainable: bool = False) -> PeftModel:
    """Puts a saved adapter on the backbone it was trained on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        warnings.filterwarnings("ignore", message=_UNTIED)
        loaded = PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable)
    assert isinstance(loaded, PeftModel)
    quick = _quickened(loaded)
    write_token_rows(quick, stored_token_rows(folder))  # PEFT had read whole matrices in the backbone's type
    return quick
