"""An index of semantic IDs: `{item: ["<a_51>", "<b_218>", ...]}`, the letter giving the level."""

import re
from pathlib import Path

import numpy as np

from peso.data.dataset import IntArray
from peso.data.sources.json_object import read_object
from peso.errors import DataError

_CODE = re.compile(r"<([a-z])_([0-9]{1,6})>")


def read_code_index(path: Path) -> dict[str, list[int]]:
    """Codes by item.

    Raises:
        DataError: the file is missing, damaged or not of this layout.
    """
    index: dict[str, list[int]] = {}
    num_levels: int | None = None
    for item, tokens in read_object(path).items():
        if not isinstance(tokens, list) or not tokens:
            raise DataError(f"{path}: item {item!r} needs a list of code tokens, not {tokens!r}.")
        codes = []
        for level, token in enumerate(tokens):
            match = _CODE.fullmatch(token) if isinstance(token, str) else None
            if match is None or ord(match.group(1)) - ord("a") != level:
                expected = f"<{chr(ord('a') + level)}_NUMBER> with a number below 1,000,000"
                raise DataError(f"{path}: item {item!r} has {token!r} at level {level + 1}; expected {expected}.")
            codes.append(int(match.group(2)))
        num_levels = num_levels or len(codes)
        if len(codes) != num_levels:
            raise DataError(f"{path}: item {item!r} has {len(codes)} codes, others have {num_levels}; use one length.")
        index[item] = codes
    return index


def natural_order(identifier: str) -> tuple[int, str]:
    """Sorts whole numbers by value, before everything else."""
    return (int(identifier), "") if identifier.isdecimal() else (2**63, identifier)


def code_table(index: dict[str, list[int]], item_ids: list[str]) -> tuple[IntArray, tuple[int, ...]]:
    """Codes in item order, int64 [N, M], and of each level the highest code plus one."""
    codes = np.array([index[item] for item in item_ids], dtype=np.int64)
    return codes, tuple((codes.max(axis=0) + 1).tolist())
