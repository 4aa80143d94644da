"""An adapter that another program trained, as the start of a workspace's own: its v_0."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peso.config import RunConfig
from peso.errors import ConfigError, DataError, WorkspaceError
from peso.files import atomic_directory, read_json, sha256_of
from peso.lm.adapters import attach_adapter, read_token_rows, save_adapter, write_token_rows
from peso.lm.backbone import EMBEDDED, build_backbone, load_tokenizer
from peso.lm.low_rank import LowRank, adapted_layers, read_low_rank, write_low_rank
from peso.lm.released import EMBEDDING, HEAD, PEFT_CONFIG, Released, backbone_beside, differs, read_released
from peso.lm.vocabulary import Vocabulary
from peso.semantic_ids.catalogue import code_token
from peso.training.materials import build_reader, load_materials

IMPORTED = "imported"
"""Folder of imported adapters in a workspace."""

FRESH = "fresh"
"""The value of `adapter.start` that imports nothing."""

_OTHER_SCALES = ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern")
"""Of PEFT's options, those with which an adapter is another function of the same A and B."""


@dataclass(frozen=True)
class Imported:
    """What an import found.

    Attributes:
        name: what `adapter.start` takes.
        rank: of A and B.
        num_layers: adapted layers.
        tables: trained matrices that were found, whole or in some rows.
        num_token_rows: trained rows of each, where not all did; 0 for whole matrices.
        num_codes: semantic-ID tokens that the checkpoint knew.
        num_codes_missing: tokens of the workspace that it did not know; their rows stay as they were.
        largest_change_left_out: of any number in a row that is not imported, because only codes' rows train here.
    """

    name: str
    rank: int
    num_layers: int
    tables: tuple[str, ...]
    num_token_rows: int
    num_codes: int
    num_codes_missing: int
    largest_change_left_out: float


def import_adapter(workspace: Path, config: RunConfig, checkpoint: Path, block: int) -> Imported:
    """Puts an adapter into a workspace, fitted to its backbone and tokens.

    Rows are matched by token, not by number: the checkpoint's tokenizer may have added codes in another order.

    Args:
        workspace: holds the data whose semantic IDs the checkpoint was trained with.
        config: names the backbone, and says which rows train.
        checkpoint: folder of a run of the authors' code, or of a PEFT adapter, with the tokenizer in it.
        block: the version after this block, of a run.

    Raises:
        ConfigError: the backbone, the adapter's shape or what trains is another than the checkpoint's.
        DataError: the checkpoint is of no known layout, damaged, or knows other tokens.
        WorkspaceError: no data.
    """
    if config.backbone.source == EMBEDDED:
        raise ConfigError(
            "an imported adapter needs the backbone it was trained on; name it by backbone.source in --config."
        )
    materials = load_materials(workspace, config)
    found = read_released(checkpoint, block)
    whole = config.backbone.model_copy(update={"quantisation": "none"})  # weights in few bits equal nobody's
    model, tokenizer = build_backbone(whole, materials.semantic_ids.level_sizes, config.seed, materials.known_titles)
    vocabulary = build_reader(materials, model, tokenizer).builder.vocabulary
    codes = vocabulary.all_token_ids
    places = _their_places(tokenizer, checkpoint, found, vocabulary)
    _check_backbone(model, found, codes[0], config)
    words = {name: table[: codes[0]] for name, table in _tables(model).items()}
    adapted = attach_adapter(model, config.adapter, codes, config.seed)
    _check_adapter(adapted, found.update, checkpoint, config)
    write_low_rank(adapted, found.update)
    rows = _fitted_rows(read_token_rows(adapted), found, places, codes, config)
    write_token_rows(adapted, rows)

    left_out = 0.0
    if config.adapter.token_rows == "codes":
        changes = [(found.tables[name][: codes[0]] - words[name].float()).abs().max() for name in found.tables]
        left_out = max(map(float, changes), default=0.0)
    update = read_low_rank(adapted)
    values = [*update.a.values(), *update.b.values(), *rows.values()]
    name = f"adapter-{sha256_of(*(value.numpy().tobytes() for value in values))[:12]}"
    folder = workspace / IMPORTED / name
    folder.parent.mkdir(exist_ok=True)
    if not folder.exists():
        with atomic_directory(folder) as temporary:
            save_adapter(adapted, temporary)
    known = int((places[codes] >= 0).sum())
    tables = tuple(sorted(found.tables.keys() | found.rows.keys()))
    num_rows = max((len(rows.numbers) for rows in found.rows.values()), default=0)
    return Imported(name, update.rank, len(update.a), tables, num_rows, known, len(codes) - known, left_out)


def _tables(model: PreTrainedModel) -> dict[str, Tensor]:
    modules = {EMBEDDING: model.get_input_embeddings(), HEAD: model.get_output_embeddings()}
    return {name: module.weight.detach().clone() for name, module in modules.items()}


def _their_places(
    tokenizer: PreTrainedTokenizerBase, checkpoint: Path, found: Released, vocabulary: Vocabulary
) -> Tensor:
    """int64 [V]: the checkpoint's number of each of our tokens, -1 for one it does not know."""
    folders = (checkpoint, checkpoint.absolute().parent, backbone_beside(checkpoint))
    folder = next((one for one in folders if one is not None and (one / "tokenizer_config.json").exists()), None)
    if folder is None:
        raise DataError(f"{checkpoint} holds no tokenizer; copy tokenizer.json and tokenizer_config.json there.")
    theirs, ours = load_tokenizer(folder).get_vocab(), tokenizer.get_vocab()
    places = torch.full((max(ours.values()) + 1,), -1)
    for token, number in ours.items():
        places[number] = theirs.get(token, -1)
    codes = vocabulary.all_token_ids
    words = torch.tensor([number for number in ours.values() if number < codes[0]])
    if not torch.equal(places[words], words):
        raise DataError(f"the tokenizer in {folder} has other words than that of the backbone; name the same backbone.")
    for level, numbers in enumerate(vocabulary.level_token_ids):
        if not (places[numbers] >= 0).any():
            raise DataError(
                f"the tokenizer in {folder} knows none of this workspace's codes of level {level + 1}, such as "
                f"{code_token(level, 0)}; check the data set."
            )
    for table, matrix in found.tables.items():
        if int(places.max()) >= len(matrix):
            raise DataError(
                f"the tokenizer in {folder} numbers codes up to {int(places.max())}, and the checkpoint's {table} has "
                f"{len(matrix)} rows; copy the tokenizer that belongs to the checkpoint."
            )
    known, tokens = set(places[codes].tolist()), {number: token for token, number in theirs.items()}
    for table, trained in found.rows.items():
        other = [number for number in trained.numbers if number not in known]
        if other:
            example = tokens.get(other[0], f"token {other[0]}")
            raise DataError(
                f"the checkpoint trained {len(trained.numbers)} rows of {table}, {len(other)} of them of no code of "
                f"this workspace, such as {example!r}; import it where the semantic IDs are those it was trained with."
            )
    return places


def _check_backbone(model: PreTrainedModel, found: Released, num_words: int, config: RunConfig) -> None:
    """Compares what the checkpoint holds of its backbone with ours; rows of new tokens are nobody's."""
    ours = model.state_dict()
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {f"{name}.weight" for name, module in model.named_modules() if module in tables}
    for name, theirs in found.frozen.items():
        if name not in ours:
            raise DataError(
                f"the checkpoint holds {name!r}, which {type(model).__name__} has not; is it of this backbone?"
            )
        pair = (theirs[:num_words], ours[name][:num_words]) if name in names else (theirs, ours[name])
        if differs(*pair):
            raise ConfigError(
                f"backbone.source {config.backbone.source!r}: its {name!r} is not the checkpoint's; name the backbone "
                "that the checkpoint was trained on."
            )


def _check_adapter(adapted: PeftModel, update: LowRank, checkpoint: Path, config: RunConfig) -> None:
    layers = adapted_layers(adapted).keys()
    if update.a.keys() != layers:
        other = sorted(update.a.keys() ^ layers)[0]
        raise ConfigError(
            f"adapter.target_modules: the checkpoint adapts {len(update.a)} layers and this configuration "
            f"{len(layers)}; they differ in {other!r}."
        )
    path = checkpoint / PEFT_CONFIG
    facts = read_json(path, "adapter configuration") if path.exists() else {"lora_alpha": config.adapter.lora_alpha}
    if not isinstance(facts, dict) or "lora_alpha" not in facts:
        raise DataError(f"{path} has no lora_alpha; it is no configuration of a LoRA adapter.")
    alpha = facts["lora_alpha"]
    for option in _OTHER_SCALES:
        if facts.get(option):
            raise DataError(f"{path} sets {option}: layers with a scale other than alpha / r cannot be imported.")
    if (update.rank, alpha) != (config.adapter.r, config.adapter.lora_alpha):
        raise ConfigError(
            f"adapter.r {config.adapter.r} and adapter.lora_alpha {config.adapter.lora_alpha} are not the checkpoint's "
            f"{update.rank} and {alpha}; set them."
        )
    ours = read_low_rank(adapted)
    for name, a in ours.a.items():
        widths = (a.shape[1], len(ours.b[name])), (update.a[name].shape[1], len(update.b[name]))
        if widths[0] != widths[1]:
            raise ConfigError(
                f"backbone.source {config.backbone.source!r}: its {name!r} goes from {widths[0][0]} to {widths[0][1]} "
                f"features, the checkpoint's from {widths[1][0]} to {widths[1][1]}; name the backbone that the "
                "checkpoint was trained on."
            )


def _fitted_rows(
    ours: dict[str, Tensor], found: Released, places: Tensor, codes: list[int], config: RunConfig
) -> dict[str, Tensor]:
    """Our trained rows with the checkpoint's values wherever it has one."""
    numbers = places[codes] if config.adapter.token_rows == "codes" else places
    trained_head = HEAD in found.tables or HEAD in found.rows
    if (
        len(ours) == 1
        and trained_head
        and differs(found.rows_of(HEAD, numbers)[1], found.rows_of(EMBEDDING, numbers)[1])
    ):
        raise ConfigError(
            'adapter.token_rows "codes" trains one row per code where embedding and head are tied, and the checkpoint '
            'trained them apart; use "all".'
        )
    fitted = {}
    for name, rows in ours.items():
        has_row, values = found.rows_of(name.removesuffix(".rows").split(".")[-1], numbers)
        fitted[name] = rows.clone()
        if has_row.any():
            fitted[name][: len(numbers)][has_row] = values
    return fitted


def imported_adapter(workspace: Path, name: str) -> Path:
    """The folder of an imported adapter.

    Raises:
        WorkspaceError: there is none of this name.
    """
    folder = workspace / IMPORTED / name
    if not folder.is_dir():
        names = ", ".join(sorted(path.name for path in folder.parent.glob("adapter-*"))) or "none"
        raise WorkspaceError(
            f"adapter.start {name!r} is not an imported adapter of {workspace} (there are: {names}); use `peso "
            "import-adapter` first."
        )
    return folder
