"""Checkpoints of the authors' code, and PEFT adapters that saved whole embeddings: what was trained, by name.

The authors' code writes a folder per run with the tokenizer, and in it `block_<t>/model.safetensors`: per adapted layer
the frozen `<layer>.orig.weight`, the adapter `<layer>.A` and `.B`, snapshots of it after each block `.A_matrices.<t>`
and `.B_matrices.<t>`; of embedding and head `<table>.original_module.weight` and the trained
`<table>.modules_to_save.default.weight`. To save space, blocks but the last may hold `modules_to_save.safetensors`
alone; their adapters are then the last block's snapshots.

Shapes: V rows of a table, D width.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from peso.errors import DataError
from peso.lm.low_rank import LowRank

PEFT_WEIGHTS = "adapter_model.safetensors"
EMBEDDING, HEAD = "embed_tokens", "lm_head"
"""Names of the tables in these layouts, which are of Llama-like models."""

_FULL, _TABLES_ONLY = "model.safetensors", "modules_to_save.safetensors"
_TABLE = re.compile(r"(?:.*\.)?(embed_tokens|lm_head)\.(?:modules_to_save\.(?:default\.)?)?weight")
_PEFT_MATRIX = re.compile(r"base_model\.model\.(.*)\.(lora_A|lora_B)\.weight")
_MATRIX = re.compile(r"(.*)\.([AB])")
_SNAPSHOT = re.compile(r"(.*)\.([AB])_matrices\.([0-9]+)")
_FROZEN = re.compile(r"(.*)\.(?:orig|original_module)\.(weight|bias)")


@dataclass(frozen=True, eq=False)
class Released:
    """One adapter as it was found.

    Attributes:
        update: A and B of each layer, float32, by the names of `LowRank`.
        tables: the whole trained matrices that are there, float32 [V, D], by "embed_tokens" and "lm_head".
        frozen: weights of the backbone under it that are there, by the backbone's own names.
    """

    update: LowRank
    tables: dict[str, Tensor]
    frozen: dict[str, Tensor]


def read_released(folder: Path, block: int) -> Released:
    """Reads a version of a checkpoint.

    Args:
        folder: of a run of the authors' code, or of a PEFT adapter, which has no blocks.
        block: the version after this block.

    Raises:
        DataError: nothing of these layouts is there, a file is damaged, a key is unknown, or there are directions with
            magnitudes (SD-LoRA) instead of one adapter.
    """
    if (folder / PEFT_WEIGHTS).exists():
        return _from_peft(folder / PEFT_WEIGHTS)
    own = folder / f"block_{block}"
    if (own / _FULL).exists():
        return _sorted_out(own / _FULL, _read(own / _FULL), None)
    last = max(folder.glob(f"block_*/{_FULL}"), key=lambda path: int(path.parent.name.split("_")[1]), default=None)
    if last is None or not (own / _TABLES_ONLY).exists():
        raise DataError(
            f"{folder} holds no version after block {block}: neither {PEFT_WEIGHTS}, nor block_{block}/{_FULL}, nor "
            f"block_{block}/{_TABLES_ONLY} beside a later block's {_FULL}; check the folder and --block."
        )
    return _sorted_out(last, _read(last) | _read(own / _TABLES_ONLY), block)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); copy it again.") from None


def _from_peft(path: Path) -> Released:
    matrices: dict[str, dict[str, Tensor]] = {"lora_A": {}, "lora_B": {}}
    tables: dict[str, Tensor] = {}
    frozen: dict[str, Tensor] = {}
    for key, tensor in _read(path).items():
        if match := _PEFT_MATRIX.fullmatch(key):
            matrices[match[2]][match[1].removeprefix("model.")] = tensor.float()
        elif match := _TABLE.fullmatch(key):
            tables[match[1]] = tensor.float()
        elif match := _FROZEN.fullmatch(key.removeprefix("base_model.model.")):  # PEFT adds it to resized embeddings
            frozen[f"{match[1]}.{match[2]}"] = tensor
        else:
            raise DataError(
                f"{path}: {key!r} is neither A, B, embed_tokens nor lm_head; this adapter is of another kind."
            )
    return Released(_checked(path, matrices["lora_A"], matrices["lora_B"]), tables, frozen)


def _sorted_out(path: Path, state: dict[str, Tensor], snapshot: int | None) -> Released:
    matrices: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    tables: dict[str, Tensor] = {}
    frozen: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if "_dir_matrices." in key or "magnitude" in key:
            raise DataError(
                f"{path}: {key!r} belongs to SD-LoRA, whose directions are no single adapter; import another."
            )
        if match := _SNAPSHOT.fullmatch(key):
            if int(match[3]) == snapshot:
                matrices[match[2]][match[1].removeprefix("model.")] = tensor.float()
        elif match := _MATRIX.fullmatch(key):
            if snapshot is None:
                matrices[match[2]][match[1].removeprefix("model.")] = tensor.float()
        elif ".modules_to_save." in key and (match := _TABLE.fullmatch(key)):
            tables[match[1]] = tensor.float()
        elif match := _FROZEN.fullmatch(key):
            frozen[f"{match[1]}.{match[2]}"] = tensor
        else:
            frozen[key] = tensor
    return Released(_checked(path, matrices["A"], matrices["B"]), tables, frozen)


def _checked(path: Path, a: dict[str, Tensor], b: dict[str, Tensor]) -> LowRank:
    if not a or a.keys() != b.keys():
        raise DataError(f"{path} holds {len(a)} matrices A and {len(b)} matrices B; one of each per layer is needed.")
    ranks = {len(matrix) for matrix in a.values()} | {matrix.shape[1] for matrix in b.values()}
    if len(ranks) > 1:
        raise DataError(f"{path} holds adapters of ranks {sorted(ranks)}; one rank is needed.")
    return LowRank(a, b)


def differs(theirs: Tensor, ours: Tensor) -> bool:
    """Whether two weights are not the same numbers, up to the rounding of the narrower type."""
    if theirs.shape != ours.shape:
        return True
    tolerance = 1e-2 if torch.bfloat16 in (theirs.dtype, ours.dtype) else 1e-3
    return not torch.allclose(
        theirs.float(), ours.float(), rtol=tolerance, atol=tolerance * float(ours.float().abs().max())
    )
