"""A small stage over the first adapter of a tiny backbone."""

from transformers import PreTrainedModel

from peso.config import AdapterConfig, TrainingConfig
from peso.data.examples import targets_of_block
from peso.lm.adapters import attach_adapter
from peso.lm.rows import many_targets_per_row, one_target_per_row
from peso.training.base import adapter_parts
from peso.training.stage import Stage
from peso.types import TemplateName
from worlds import tiny_backbone, tiny_builder, tiny_codes, tiny_dataset

MAX_HISTORY = 4
BLOCK = 1


def stage_and_model(
    item_dropout: float = 0.0, template: TemplateName = "sid", shuffled_share: float = 0.0
) -> tuple[Stage, PreTrainedModel]:
    dataset = tiny_dataset()
    model, tokenizer = tiny_backbone()
    builder, vocabulary = tiny_builder(tokenizer, dataset, tiny_codes(), template)
    parts = adapter_parts(attach_adapter(model, AdapterConfig(r=4, lora_alpha=8), vocabulary.all_token_ids, seed=0))
    rows = many_targets_per_row(dataset, targets_of_block(dataset, BLOCK, "train"), MAX_HISTORY, 3)
    valid_rows = one_target_per_row(dataset, targets_of_block(dataset, BLOCK, "valid"), MAX_HISTORY)
    stage = Stage(
        name="test", key="", block=BLOCK, parts=parts, builder=builder, train_rows=rows, valid_rows=valid_rows,
        epochs=2, learning_rates=dict.fromkeys(parts, 1e-3), batch_targets=256, weight_decay=0.0,
        training=TrainingConfig(item_dropout=item_dropout, targets_per_row=3), seed=0, max_history=MAX_HISTORY,
        shuffled_share=shuffled_share,
    )  # fmt: skip
    return stage, model
