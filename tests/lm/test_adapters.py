"""The adapter: PEFT's format, the right parameters, and a flat buffer that modules share."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from peso.config import AdapterConfig, BackboneConfig
from peso.errors import ConfigError
from peso.lm.adapters import attach_adapter, load_adapter, lora_parameters, save_adapter, token_row_parameters
from peso.lm.backbone import build_backbone, load_weights, save_backbone
from peso.lm.parameters import FlatParameters
from peso.lm.token_rows import head_rows
from peso.lm.vocabulary import build_vocabulary
from worlds import LEVEL_SIZES, tiny_backbone, tiny_codes


def adapted(backbone: Path | None = None) -> tuple[PeftModel, list[int]]:
    """A fresh adapter and its tokens; the backbone under it is saved where a folder is named."""
    model, tokenizer = tiny_backbone()
    if backbone is not None:
        save_backbone(model, tokenizer, backbone)
    tokens = build_vocabulary(tokenizer, tiny_codes(), LEVEL_SIZES).all_token_ids
    return attach_adapter(model, AdapterConfig(r=8, lora_alpha=16), tokens, seed=0), tokens


def disturb(model: PeftModel) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_only_lora_and_token_rows_train() -> None:
    model, tokens = adapted()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    lora, rows = lora_parameters(model), token_row_parameters(model)
    assert len(trainable) == len(lora) + len(rows)
    assert len(lora) == 2 * 7 * 2  # A and B, seven linear layers, two blocks
    assert [name for name, _ in rows] == ["embed_tokens.rows", "lm_head.rows"]
    assert all(parameter.shape[0] == len(tokens) for _, parameter in rows)
    assert "layers.0.self_attn.q_proj.lora_A" in dict(lora)


def test_saved_adapter_is_read_by_peft_itself(tmp_path: Path) -> None:
    peft_model, _ = adapted(tmp_path / "backbone")
    disturb(peft_model)
    (tmp_path / "adapter").mkdir()
    save_adapter(peft_model, tmp_path / "adapter")
    prompt = torch.tensor([[1, 9, 12, 17, 8]])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone")
    with torch.no_grad():
        without = plain(prompt).logits
        theirs = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
        stock = theirs(prompt).logits
        ours = peft_model.eval()(prompt).logits
        reread = load_weights(tmp_path / "backbone")
        again = load_adapter(reread, tmp_path / "adapter").eval()(prompt).logits
    mine = dict(peft_model.named_parameters())
    assert all(torch.equal(values, mine[name]) for name, values in theirs.named_parameters())
    torch.testing.assert_close(stock, ours, rtol=0, atol=1e-5)  # PEFT adds B A x to W x; we form W + B A first
    torch.testing.assert_close(again, ours, rtol=0, atol=0)
    assert (without - ours).abs().max() > 1e-3


def test_a_version_in_bfloat16_takes_half_and_is_trained_on_in_float32(tmp_path: Path) -> None:
    peft_model, _ = adapted(tmp_path / "backbone")
    disturb(peft_model)
    for name in ("whole", "half", "again"):
        (tmp_path / name).mkdir()
    whole = save_adapter(peft_model, tmp_path / "whole")
    half = save_adapter(peft_model, tmp_path / "half", "bfloat16")
    num_trained = sum(parameter.numel() for parameter in peft_model.parameters() if parameter.requires_grad)
    assert whole - half == pytest.approx(2 * num_trained, rel=0.02)
    loaded = load_adapter(load_weights(tmp_path / "backbone"), tmp_path / "half", is_trainable=True)
    now = dict(peft_model.named_parameters())
    for name, values in loaded.named_parameters():
        assert values.dtype == torch.float32
        if values.requires_grad:
            assert torch.equal(values, now[name].to(torch.bfloat16).float())
    save_adapter(loaded, tmp_path / "again", "bfloat16")
    weights = "adapter_model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (tmp_path / "half" / weights).read_bytes()


def test_head_rows_include_what_the_adapter_trains() -> None:
    model, tokens = adapted()
    disturb(model)
    backbone = model.get_base_model()
    hidden = torch.randn(3, 16)
    with torch.no_grad():
        full = backbone.get_output_embeddings()(hidden)  # type: ignore[operator]
        rows = head_rows(backbone, torch.tensor(tokens))  # type: ignore[arg-type]
    torch.testing.assert_close(hidden @ rows.T, full[:, tokens], atol=1e-5, rtol=1e-5)


def test_unknown_target_modules_are_refused() -> None:
    model, _ = tiny_backbone()
    with pytest.raises(ConfigError, match="no layer named 'query'"):
        attach_adapter(model, AdapterConfig(target_modules=("q_proj", "query")), [5], seed=0)


def test_an_unloadable_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not be loaded as a causal language model"):
        build_backbone(BackboneConfig(source=str(tmp_path)), LEVEL_SIZES, seed=0)


def test_a_loaded_backbone_gains_rows_for_new_tokens(tmp_path: Path) -> None:
    model, tokenizer = tiny_backbone((2, 2))
    save_backbone(model, tokenizer, tmp_path)
    larger, its_tokenizer = build_backbone(BackboneConfig(source=str(tmp_path)), LEVEL_SIZES, seed=0)
    embedding = larger.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    assert embedding.num_embeddings >= len(its_tokenizer)
    vocabulary = build_vocabulary(its_tokenizer, tiny_codes(), LEVEL_SIZES)
    assert len(set(vocabulary.all_token_ids)) == sum(LEVEL_SIZES)


def test_flat_parameters_share_memory_with_the_modules() -> None:
    model, _ = adapted()
    before = {name: parameter.detach().clone() for name, parameter in lora_parameters(model)}
    flat = FlatParameters(lora_parameters(model))
    for name, parameter in lora_parameters(model):
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)
    with torch.no_grad():
        flat.data.add_(1.0)
    for name, parameter in lora_parameters(model):
        torch.testing.assert_close(parameter.detach(), before[name] + 1, rtol=0, atol=0)
    for stack in flat.stacks:
        values = stack.of(flat.snapshot())
        for row, name in zip(values, stack.names, strict=True):
            torch.testing.assert_close(row, before[name].flatten() + 1, rtol=0, atol=0)
