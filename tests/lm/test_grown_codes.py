"""A model with more codes: what it said of the old ones is bit-equal, and the new ones start from their neighbours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from language_models import FAMILIES, write_language_model
from peso.config import AdapterConfig, BackboneConfig
from peso.lm.adapters import attach_adapter, load_adapter, save_adapter, stored_token_rows, token_row_parameters
from peso.lm.backbone import build_backbone, load_tokenizer, load_weights, save_backbone
from peso.lm.grown_codes import Growth, grow_adapter, grow_backbone
from peso.lm.vocabulary import build_vocabulary
from peso.types import Precision

SIZES, GROWN = (3, 4), (3, 6)
WEIGHTS = np.array([[0.5, 0.5, 0, 0], [0, 0, 0, 1]], dtype=np.float32)
GROWTH = Growth(GROWN, WEIGHTS)
CODES = np.array([[0, 0], [2, 3]])


def written(folder: Path, source: str, token_rows: str, precision: Precision = "float32") -> PreTrainedTokenizerBase:
    """A backbone with codes and a trained adapter in `folder`; its tokenizer."""
    model, tokenizer = build_backbone(
        BackboneConfig(source=source, hidden_size=16, num_layers=1, num_heads=2), SIZES, 0
    )
    save_backbone(model, tokenizer, folder / "backbone")
    tokens = build_vocabulary(tokenizer, CODES, SIZES).all_token_ids
    adapted = attach_adapter(
        model, AdapterConfig(r=2, lora_alpha=4, target_modules=("all-linear",), token_rows=token_rows), tokens, 0
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    (folder / "adapter").mkdir()
    save_adapter(adapted, folder / "adapter", precision)
    return tokenizer


@pytest.mark.parametrize("token_rows", ["codes", "all"])
@pytest.mark.parametrize("source", ["embedded", *FAMILIES])
def test_old_tokens_are_read_as_before(source: str, token_rows: str, tmp_path: Path) -> None:
    if source != "embedded":
        source = str(write_language_model(tmp_path / "model", source))
    before = written(tmp_path, source, token_rows)
    model, tokenizer = load_weights(tmp_path / "backbone"), load_tokenizer(tmp_path / "backbone")
    grow_backbone(model, tokenizer, GROWTH)
    (tmp_path / "grown").mkdir()
    grow_adapter(tmp_path / "adapter", tmp_path / "grown", tokenizer, GROWTH)
    old_vocabulary, vocabulary = build_vocabulary(before, CODES, SIZES), build_vocabulary(tokenizer, CODES, GROWN)
    assert np.array_equal(old_vocabulary.item_token_ids, vocabulary.item_token_ids)
    old_ids = [ids.tolist() for ids in old_vocabulary.level_token_ids]
    new_ids = vocabulary.level_token_ids[1][4:].tolist()
    assert min(new_ids) > max(old_ids[1]) and len(set(new_ids)) == 2

    old = load_adapter(load_weights(tmp_path / "backbone"), tmp_path / "adapter").eval()
    new = load_adapter(model, tmp_path / "grown", is_trainable=True).eval()
    known = torch.tensor(old_ids[0] + old_ids[1])
    text = torch.cat([torch.tensor(before("red guitar", add_special_tokens=False)["input_ids"]), known])[None]
    with torch.no_grad():
        said, again = old(input_ids=text).logits, new(input_ids=text).logits
    words = min(said.shape[-1], min(new_ids))
    assert torch.equal(said[..., :words], again[..., :words])
    # A logit is linear in its row of the head, caps aside, so that of a mix lies within those of its parts.
    parts = said[..., old_ids[1]]
    mix = again[..., new_ids]
    assert torch.allclose(mix[..., 1], parts[..., 3], atol=1e-5)
    assert (mix[..., 0] <= parts[..., :2].amax(-1) + 1e-5).all() and (
        mix[..., 0] >= parts[..., :2].amin(-1) - 1e-5
    ).all()
    if token_rows == "codes":
        assert {len(rows) for _, rows in token_row_parameters(new)} == {3 + 6}, "new rows train on"


def test_rows_come_from_what_the_adapter_knows(tmp_path: Path) -> None:
    written(tmp_path, "embedded", "codes")
    model, tokenizer = load_weights(tmp_path / "backbone"), load_tokenizer(tmp_path / "backbone")
    grow_backbone(model, tokenizer, GROWTH)
    (tmp_path / "grown").mkdir()
    grow_adapter(tmp_path / "adapter", tmp_path / "grown", tokenizer, GROWTH)
    before, after = stored_token_rows(tmp_path / "adapter"), stored_token_rows(tmp_path / "grown")
    for name, rows in before.items():
        assert torch.equal(after[name][:7], rows)
        assert torch.allclose(after[name][7:], torch.from_numpy(WEIGHTS) @ rows[3:7])


@pytest.mark.parametrize("token_rows", ["codes", "all"])
def test_a_version_in_bfloat16_grows_in_it(token_rows: str, tmp_path: Path) -> None:
    written(tmp_path, "embedded", token_rows, "bfloat16")
    model, tokenizer = load_weights(tmp_path / "backbone"), load_tokenizer(tmp_path / "backbone")
    grow_backbone(model, tokenizer, GROWTH)
    (tmp_path / "grown").mkdir()
    grow_adapter(tmp_path / "adapter", tmp_path / "grown", tokenizer, GROWTH)
    weights = load_file(tmp_path / "grown" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert load_adapter(model, tmp_path / "grown").dtype == torch.float32
