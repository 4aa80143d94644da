"""A run's version that speaks of more codes than it was trained with, in memory and on disk."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from peft import PeftModel
from transformers import PreTrainedModel

from peso.lm.adapters import CARRIED, carried_of, load_adapter
from peso.lm.backbone import load_tokenizer, load_weights, save_backbone
from peso.lm.device import make_ready
from peso.lm.grown_codes import Growth, grow_adapter, grow_backbone
from peso.semantic_ids.growing import neighbour_weights
from peso.semantic_ids.quantizers.base import Codebook
from peso.training.base import BACKBONE, Base
from peso.training.materials import Materials, Reader, build_reader


def growth_of(codebook: Codebook, level_sizes: tuple[int, ...]) -> Growth:
    """What a grown codebook adds.

    Args:
        codebook: grown.
        level_sizes: codes per level before.
    """
    return Growth(codebook.level_sizes, neighbour_weights(codebook, level_sizes[-1]))


def load_grown(
    materials: Materials, base: Base, folder: Path, growth: Growth
) -> tuple[PreTrainedModel | PeftModel, Reader]:
    """As `peso.training.base.load_state`, with the new codes' tokens.

    Args:
        materials: data and configuration, with the codes before.
        base: a finished base.
        folder: an adapter, or a whole backbone if `save_state` wrote it.
        growth: what is new.
    """
    is_adapter = not (folder / BACKBONE).exists()
    model, tokenizer = (
        load_weights((base.folder if is_adapter else folder) / BACKBONE),
        load_tokenizer(base.folder / BACKBONE),
    )
    grow_backbone(model, tokenizer, growth)
    model = make_ready(model, kernels=materials.config.training.kernels)
    semantic_ids = replace(materials.semantic_ids, level_sizes=growth.level_sizes)
    reader = build_reader(replace(materials, semantic_ids=semantic_ids), model, tokenizer)
    if not is_adapter:
        return model, reader
    with TemporaryDirectory() as temporary:
        grow_adapter(folder, Path(temporary), tokenizer, growth)
        return load_adapter(model, Path(temporary)), reader


def write_grown(base: Base, adapter: Path, growth: Growth, target: Path) -> None:
    """Writes backbone and adapter with the new codes' tokens, in the standard layouts.

    Args:
        base: a finished base.
        adapter: one on its backbone, with what the next block starts from beside it where that is another.
        growth: what is new.
        target: an existing folder, which gets `backbone/` and `adapter/`.
    """
    model, tokenizer = load_weights(base.folder / BACKBONE), load_tokenizer(base.folder / BACKBONE)
    grow_backbone(model, tokenizer, growth)
    save_backbone(model, tokenizer, target / BACKBONE)
    (target / "adapter").mkdir()
    grow_adapter(adapter, target / "adapter", tokenizer, growth)
    if (carried := carried_of(adapter)) != adapter:
        grow_adapter(carried, target / "adapter" / CARRIED, tokenizer, growth)
