"""JSON files that are one object each, such as `{user: ...}` or `{item: ...}`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from peso.errors import DataError


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        DataError: it is missing, no UTF-8, no JSON, no object, empty, or names a key twice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object_without_repeats)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "is the file complete? Copy or download it again."
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; copy or download it again.") from None
    except _RepeatedKey as error:
        raise DataError(f"{path}: the key {error.args[0]!r} occurs twice in one object; merge or remove one.") from None
    except RecursionError:
        raise DataError(f"{path}: brackets nested too deep for this layout; copy or download it again.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions.") from None
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: expected a JSON object with at least one entry.")
    return content


class _RepeatedKey(Exception):
    """A JSON object names one key twice."""


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _RepeatedKey(next(key for key, count in counts.items() if count > 1))
    return content
