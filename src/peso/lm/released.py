"""Checkpoints of the authors' code, and PEFT adapters with whole embeddings or rows of them: what was trained, by name.

The authors' code writes a folder per run with the tokenizer, and in it `block_<t>/model.safetensors`: per adapted layer
the frozen `<layer>.orig.weight`, the adapter `<layer>.A` and `.B`, snapshots of it after each block `.A_matrices.<t>`
and `.B_matrices.<t>`; of embedding and head `<table>.original_module.weight` and the trained
`<table>.modules_to_save.default.weight`. To save space, blocks but the last may hold `modules_to_save.safetensors`
alone; their adapters are then the last block's snapshots.

PEFT's trainable token indices are `<table>.token_adapter.trainable_tokens_delta`, with their tokens in the adapter's
configuration. What `peso export` writes has its backbone and tokenizer in `backbone/` beside it.

Shapes: V rows of a table, K of them trained, T tokens, D width.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig

from peso.errors import DataError
from peso.files import read_json
from peso.lm.low_rank import LowRank
from peso.lm.quantisation import is_quantised

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
EMBEDDING, HEAD = "embed_tokens", "lm_head"
"""Names of the tables in these layouts, which are of Llama-like models."""

_FULL, _TABLES_ONLY = "model.safetensors", "modules_to_save.safetensors"
_TABLE = re.compile(r"(?:.*\.)?(embed_tokens|lm_head)\.(?:modules_to_save\.(?:default\.)?)?weight")
_TOKEN_ROWS = re.compile(r"(?:.*\.)?([^.]+)\.token_adapter\.trainable_tokens_delta")
_PEFT_MATRIX = re.compile(r"base_model\.model\.(.*)\.(lora_A|lora_B)\.weight")
_MATRIX = re.compile(r"(.*)\.([AB])")
_SNAPSHOT = re.compile(r"(.*)\.([AB])_matrices\.([0-9]+)")
_FROZEN = re.compile(r"(.*)\.(?:orig|original_module)\.(weight|bias)")


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows of a table that trained, and no others.

    Attributes:
        numbers: of their tokens, in the order of `values`.
        values: float32 [K, D].
    """

    numbers: list[int]
    values: Tensor


@dataclass(frozen=True, eq=False)
class Released:
    """One adapter as it was found.

    Attributes:
        update: A and B of each layer, float32, by the names of `LowRank`.
        tables: the whole trained matrices that are there, float32 [V, D], by "embed_tokens" and "lm_head".
        rows: of tables that trained in some rows alone, by the tables' own names.
        frozen: weights of the backbone under it that are there, by the backbone's own names.
    """

    update: LowRank
    tables: dict[str, Tensor]
    frozen: dict[str, Tensor]
    rows: dict[str, TokenRows] = field(default_factory=dict)

    def rows_of(self, table: str, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """What a table has of some tokens; a head that is not there is tied to the embedding.

        Args:
            table: its own name.
            numbers: int64 [T], of the tokens here, -1 for one that is unknown.

        Returns:
            bool [T], which of them have a row, and the rows of these, float32.
        """
        there = self.tables.keys() | self.rows.keys()
        found = table if table in there or table != HEAD else next(iter(there), None)
        if found in self.tables:
            return numbers >= 0, self.tables[found][numbers[numbers >= 0]]
        if found not in self.rows:
            return torch.zeros(len(numbers), dtype=torch.bool), torch.empty(0)
        trained = self.rows[found]
        places = {number: place for place, number in enumerate(trained.numbers)}
        has_row = torch.tensor([number in places for number in numbers.tolist()])
        return has_row, trained.values[[places[number] for number in numbers[has_row].tolist()]]


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
        return _from_peft(folder)
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


def _from_peft(folder: Path) -> Released:
    path = folder / PEFT_WEIGHTS
    matrices: dict[str, dict[str, Tensor]] = {"lora_A": {}, "lora_B": {}}
    tables: dict[str, Tensor] = {}
    rows: dict[str, TokenRows] = {}
    frozen = _backbone_beside(folder)
    for key, tensor in _read(path).items():
        if match := _PEFT_MATRIX.fullmatch(key):
            matrices[match[2]][match[1].removeprefix("model.")] = tensor.float()
        elif match := _TABLE.fullmatch(key):
            tables[match[1]] = tensor.float()
        elif match := _TOKEN_ROWS.fullmatch(key):
            rows[match[1]] = _token_rows(folder / PEFT_CONFIG, match[1], tensor.float())
        elif match := _FROZEN.fullmatch(key.removeprefix("base_model.model.")):  # PEFT adds it to resized embeddings
            frozen[f"{match[1]}.{match[2]}"] = tensor
        else:
            raise DataError(
                f"{path}: {key!r} is neither A, B, embed_tokens nor lm_head; this adapter is of another kind."
            )
    return Released(_checked(path, matrices["lora_A"], matrices["lora_B"]), tables, frozen, rows)


def _token_rows(path: Path, table: str, values: Tensor) -> TokenRows:
    facts = read_json(path, "adapter configuration")
    tokens = facts.get("trainable_token_indices") if isinstance(facts, dict) else None
    numbers = tokens.get(table) if isinstance(tokens, dict) else tokens
    if not isinstance(numbers, list) or len(numbers) != len(values):
        raise DataError(
            f"{path}: trainable_token_indices do not name the {len(values)} tokens whose rows of {table} trained; copy "
            "the adapter again, both files."
        )
    return TokenRows([int(number) for number in numbers], values)


def backbone_beside(checkpoint: Path) -> Path | None:
    """The backbone that `peso export` wrote with an adapter, with its tokenizer; None where there is none."""
    folder = checkpoint.absolute().parent / "backbone"
    return folder if (folder / "config.json").exists() else None


def _backbone_beside(checkpoint: Path) -> dict[str, Tensor]:
    """Its weights; none where they are in few bits, which equal nobody's."""
    folder = backbone_beside(checkpoint)
    if folder is None or is_quantised(AutoConfig.from_pretrained(folder)):
        return {}
    return {name: weight for file in sorted(folder.glob("*.safetensors")) for name, weight in _read(file).items()}


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
