"""One configuration per run: every number that decides a result, with its meaning under it.

A configuration file is TOML with the same nesting; unknown keys and values out of range are all reported at once. Some
come with the package, as presets.
"""

import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from peso.config.method_sections import (
    DEFAULT_STRENGTHS,
    CumulativeConfig,
    EwcConfig,
    FullConfig,
    OLoraConfig,
    OrthogonalConfig,
    OutputKlConfig,
    ProximalConfig,
    ReplayConfig,
)
from peso.config.presets import file_or_preset, preset_names
from peso.config.run import SECTION_OF_METHOD, RunConfig, unread_sections
from peso.config.sections import (
    AdapterConfig,
    AlignmentConfig,
    BackboneConfig,
    DecodingConfig,
    EvaluationConfig,
    MemoryConfig,
    TrainingConfig,
)
from peso.config.together import check_together
from peso.errors import ConfigError

__all__ = [
    "DEFAULT_STRENGTHS",
    "SECTION_OF_METHOD",
    "AdapterConfig",
    "AlignmentConfig",
    "BackboneConfig",
    "CumulativeConfig",
    "DecodingConfig",
    "EvaluationConfig",
    "EwcConfig",
    "FullConfig",
    "MemoryConfig",
    "OLoraConfig",
    "OrthogonalConfig",
    "OutputKlConfig",
    "ProximalConfig",
    "ReplayConfig",
    "RunConfig",
    "TrainingConfig",
    "dump_config",
    "make_config",
    "preset_names",
    "unread_sections",
]


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def make_config(file: Path | None = None, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Defaults, then the file, then the overrides.

    Args:
        file: a TOML file with any subset of the keys of `RunConfig`, or the bare name of a preset.
        overrides: nested values that win over the file (from command-line flags).

    Raises:
        ConfigError: the file cannot be read, is not TOML, or any key or value is wrong (all named in one message).
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file_or_preset(file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"configuration file {file} does not exist; check the path given to --config, or name a preset: "
                f"{', '.join(preset_names())}."
            ) from None
        except OSError as error:
            raise ConfigError(
                f"configuration file {file} cannot be read ({error.strerror}); give a TOML file to --config."
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"configuration file {file} is not valid TOML: {error}.") from None
    try:
        config = RunConfig.model_validate(_merge(values, overrides or {}))
    except ValidationError as error:
        where = f"configuration ({file})" if file else "configuration"
        raise ConfigError(f"{where}: {_problems(error)}.") from None
    check_together(config)
    return config


def _problems(error: ValidationError) -> str:
    """Each wrong key once, with what it may be."""
    allowed: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    for entry in error.errors():
        # A value of several kinds has an entry for each, whose place ends with pydantic's name of the kind.
        key = ".".join(str(part) for part in entry["loc"] if str(part).isidentifier() or isinstance(part, int))
        key = next((known for known in given if key.startswith(f"{known}.") and entry["input"] == given[known]), key)
        allowed.setdefault(key, []).append(_uncapitalised(entry["msg"]))
        given[key] = entry["input"]
    return "; ".join(f"{key}: {', or '.join(whys)} (got {given[key]!r})" for key, whys in allowed.items())


def _uncapitalised(text: str) -> str:
    text = text.removeprefix("Value error, ")  # what pydantic puts before the words of our own validators
    return text[:1].lower() + text[1:]


def dump_config(config: RunConfig) -> str:
    """The complete configuration as TOML, which `make_config` reads back; an unused memory's options are left out."""
    return tomli_w.dumps(config.model_dump(mode="json"))
