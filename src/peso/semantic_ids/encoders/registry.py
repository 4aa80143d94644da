"""Encoders by name. Each is imported when it is asked for, so that TF-IDF loads no model library."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from peso.data.dataset import Dataset, IntArray
from peso.errors import ConfigError
from peso.semantic_ids.encoders.base import Encoder, ItemContents
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoders.concatenation import ConcatenatedEncoder, concatenate, states_of_parts
from peso.semantic_ids.frozen import FrozenState, Vectors
from peso.types import EncoderName

_JOIN = "+"


@dataclass(frozen=True, eq=False)
class EncoderRequest:
    """What encoders are fitted on and where models are.

    Attributes:
        dataset: the events.
        items: ids and texts of all items.
        fit_on: numbers of the items that are known in block 0, int64.
        model: folder or hub name, for `sentences` and `language-model`; None lets `sentences` read the MiniLM that the
            extra `text` installs.
        vectors: file, for `precomputed`.
        seed: of everything random.
        cache: folder where vectors are kept; None computes them anew.
    """

    dataset: Dataset
    items: ItemContents
    fit_on: IntArray
    model: str | None
    vectors: Path | None
    seed: int
    cache: Path | None = None


def build_encoder(name: str, request: EncoderRequest) -> Encoder:
    """Fits or loads an encoder.

    Args:
        name: an `EncoderName`, or several joined by "+", whose vectors are concatenated.
        request: what it may look at.

    Raises:
        ConfigError: an unknown name, or one that needs a model or a file that is not given.
        DataError: there is nothing to learn from.
    """
    parts = build_parts(name, request)
    return parts[0] if len(parts) == 1 else concatenate(parts, [_known_vectors(part, request) for part in parts])


def build_parts(name: str, request: EncoderRequest) -> list[Encoder]:
    """The encoders of `build_encoder` side by side; see there."""
    names = name.split(_JOIN)
    unknown = next((part for part in names if part not in get_args(EncoderName)), None)
    if unknown is not None:
        raise ConfigError(
            f"no encoder {unknown!r}; choose from {', '.join(get_args(EncoderName))}, or join several by {_JOIN!r}."
        )
    if len(set(names)) != len(names):
        raise ConfigError(f"--encoder {name} names an encoder twice; name each once.")
    if "sentences" in names and request.model is None:
        from peso.semantic_ids.encoders.sentences import packaged_model

        request = replace(request, model=packaged_model())
    _check_files(names, request)
    return [_build_one(part, request) for part in names]


def _known_vectors(encoder: Encoder, request: EncoderRequest) -> Vectors:
    if request.cache is None:
        return encoder.encode(request.items)[request.fit_on]
    return encode_in_batches(encoder, request.items, request.cache)[request.fit_on]


def _check_files(names: list[str], request: EncoderRequest) -> None:
    wants_model = {"sentences", "language-model"} & set(names)
    if len(wants_model) == 2:
        raise ConfigError("--encoder names both sentences and language-model, but there is one --model; choose one.")
    for is_wanted, value, flag, kinds in (
        (bool(wants_model), request.model, "--model", "sentences and language-model"),
        ("precomputed" in names, request.vectors, "--vectors", "precomputed"),
    ):
        if is_wanted and value is None:
            or_install = "" if "sentences" not in names else ", or the MiniLM of pip install 'peso-rec[text]'"
            raise ConfigError(f"--encoder {_JOIN.join(names)} needs {flag}{or_install}.")
        if value is not None and not is_wanted:
            raise ConfigError(f"{flag} is read by the encoders {kinds} only; leave it out or choose one of them.")


def _build_one(name: str, request: EncoderRequest) -> Encoder:
    if name == "precomputed":
        from peso.semantic_ids.encoders.precomputed import read_vectors

        assert request.vectors is not None
        return read_vectors(request.vectors, request.items.ids)
    if name == "collaborative":
        from peso.semantic_ids.encoders.collaborative import fit_collaborative

        return fit_collaborative(request.dataset, request.seed)
    if not any(text.strip() for text in request.items.texts):
        raise ConfigError(
            f"--encoder {name} reads texts, but no item of this workspace has a title or text; "
            "import them, or choose --encoder collaborative or precomputed."
        )
    if name == "tfidf":
        from peso.semantic_ids.encoders.tfidf import fit_tfidf

        return fit_tfidf(request.items, request.fit_on, request.seed)
    assert request.model is not None
    if name == "sentences":
        from peso.semantic_ids.encoders.sentences import SentenceEncoder

        return SentenceEncoder(request.model)
    from peso.semantic_ids.encoders.language_model import LanguageModelEncoder

    return LanguageModelEncoder(request.model)


def restore_encoder(state: FrozenState) -> Encoder:
    """The encoder that gave a state.

    Raises:
        ConfigError: its model is gone or has changed.
    """
    match state.kind:
        case "concatenation":
            return ConcatenatedEncoder(list(map(restore_encoder, states_of_parts(state))), state.facts["scales"])
        case "tfidf":
            from peso.semantic_ids.encoders.tfidf import TfidfEncoder

            return TfidfEncoder.from_state(state)
        case "sentences":
            from peso.semantic_ids.encoders.sentences import SentenceEncoder

            return SentenceEncoder.from_state(state)
        case "language-model":
            from peso.semantic_ids.encoders.language_model import LanguageModelEncoder

            return LanguageModelEncoder.from_state(state)
        case _:
            from peso.semantic_ids.encoders.precomputed import PrecomputedEncoder

            return PrecomputedEncoder.from_state(state)
