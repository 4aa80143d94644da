"""Language alignment: what the texts say, what their loss is, and that a model learns which title is which item."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from transformers import AutoModelForCausalLM

from language_models import WORDS, write_language_model
from peso.config import RunConfig, make_config
from peso.data.dataset import Dataset
from peso.errors import ConfigError
from peso.lm.alignment import AlignmentText, alignment_losses, alignment_texts
from peso.lm.backbone import build_backbone, load_tokenizer, save_backbone
from peso.lm.new_tokens import TitledItems
from peso.lm.vocabulary import build_vocabulary
from peso.training.base import load_base
from peso.training.base_training import prepare_base
from peso.training.checkpoints import save_checkpoint
from peso.training.materials import load_materials
from streams import config
from worlds import LEVEL_SIZES, fill_workspace, tiny_codes, tiny_dataset

TITLES = ["red guitar", "", "the loud golden horn"]


@pytest.fixture(scope="module", params=["llama", "gemma", "qwen3", "gpt2"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("model") / "model", request.param)


def titled_workspace(folder: Path) -> Path:
    plain = tiny_dataset()
    titles = [f"the {WORDS[n % 8]} {WORDS[8 + n % 9]}" for n in range(plain.num_items)]
    events = (plain.event_user, plain.event_item, plain.event_block)
    fill_workspace(folder, Dataset(plain.user_ids, plain.item_ids, titles, *events, plain.num_blocks, "with titles"))
    return folder


def test_texts_say_both_ways(source: Path, tmp_path: Path) -> None:
    """Whole texts are what the tokenizer writes; only the answer and the end are to be learnt."""
    codes = tiny_codes(3)
    model, tokenizer = build_backbone(config(backbone={"source": str(source)}).backbone, LEVEL_SIZES, 0)
    vocabulary = build_vocabulary(tokenizer, codes, LEVEL_SIZES)
    texts = alignment_texts(tokenizer, vocabulary, TitledItems(TITLES, codes))
    assert len(texts) == 4  # the second item has no title
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for item, pair in zip((0, 2), (texts[:2], texts[2:]), strict=True):
        ids = vocabulary.item_token_ids[item].tolist()
        to_codes, to_title = pair
        assert list(to_codes.tokens[to_codes.num_prompt :]) == [*ids, tokenizer.eos_token_id]
        prompt = tokenizer.encode(f'The item called "{TITLES[item]}" is:', add_special_tokens=False)
        assert list(to_codes.tokens[: to_codes.num_prompt]) == begin + prompt
        assert list(to_title.tokens[len(begin) : len(begin) + 3]) == ids
        answer = tokenizer.decode(list(to_title.tokens[to_title.num_prompt : -1]))
        assert isinstance(answer, str)
        assert answer.strip() == TITLES[item]
        assert to_title.tokens[-1] == tokenizer.eos_token_id
    with pytest.raises(ConfigError, match=r"alignment.epochs: no item of block 0 has a title"):
        alignment_texts(tokenizer, vocabulary, TitledItems(["", " ", ""], codes))

    save_backbone(model, tokenizer, tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    expected = []
    with torch.no_grad():
        for text in texts:  # one at a time, by the stock model's own loss
            ids_L = torch.tensor(text.tokens)
            logits = stock.eval()(input_ids=ids_L[None]).logits[0, text.num_prompt - 1 : -1]
            expected.append(functional.cross_entropy(logits, ids_L[text.num_prompt :], reduction="none"))
        ours = alignment_losses(model.eval(), texts, vocabulary.pad_token_id)
    torch.testing.assert_close(ours, torch.cat(expected), rtol=1e-4, atol=1e-4)


def config_of(source: Path, **overrides: Any) -> RunConfig:
    aligned = {"epochs": 50, "learning_rate": 1e-2, "batch_texts": 10} | overrides.pop("alignment", {})
    training = {"base_epochs": 0} | overrides.pop("training", {})
    return config(
        backbone={"source": str(source)}, alignment=aligned, training=training, template="instruct", max_history=6,
        adapter={"r": 8, "lora_alpha": 16, "target_modules": ("all-linear",)}, **overrides,
    )  # fmt: skip


def test_a_title_comes_to_mean_its_item(tmp_path: Path) -> None:
    """After the stage an item's codes are likelier behind its own title than behind another item's."""
    source = write_language_model(tmp_path / "model", "llama")
    workspace = titled_workspace(tmp_path / "world")
    chosen = config_of(source)
    materials = load_materials(workspace, chosen)
    base = prepare_base(materials, workspace / "bases")
    log = [epoch for epoch in base.epochs if epoch["stage"] == "alignment"]
    assert len(log) == 50 and log[-1]["selected"]
    assert log[-1]["valid_loss"] < 0.7 * log[0]["valid_loss"]

    model, reader = load_base(materials, base)
    vocabulary, known = reader.builder.vocabulary, materials.known_titles
    texts = alignment_texts(load_tokenizer(base.folder / "backbone"), vocabulary, known)[::2]
    others = [
        AlignmentText((*b.tokens[: b.num_prompt], *a.tokens[a.num_prompt :]), b.num_prompt)
        for a, b in zip(texts, texts[1:] + texts[:1], strict=True)
    ]
    assert isinstance(model, PeftModel)
    with torch.no_grad():
        own, other = (float(alignment_losses(reader.model.eval(), t, 0).mean()) for t in (texts, others))
    assert own < other - 0.5


def test_a_killed_stage_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_language_model(tmp_path / "model", "smollm")
    workspace = titled_workspace(tmp_path / "world")
    materials = load_materials(workspace, config_of(source, alignment={"epochs": 3}))
    whole = prepare_base(materials, tmp_path / "whole")

    def killed(*arguments: Any) -> None:
        save_checkpoint(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("peso.training.alignment.save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_base(materials, tmp_path / "killed")
    monkeypatch.undo()
    again = prepare_base(materials, tmp_path / "killed")
    losses = [[epoch["train_loss"] for epoch in base.epochs] for base in (whole, again)]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    weights = [(base.folder / "adapter" / "adapter_model.safetensors").read_bytes() for base in (whole, again)]
    assert weights[0] == weights[1]


def test_what_alignment_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"alignment.epochs 2 needs a backbone that knows words"):
        make_config(None, {"alignment": {"epochs": 2}})
    source = write_language_model(tmp_path / "model", "smollm")
    fill_workspace(tmp_path / "world", tiny_dataset())
    bases = [load_materials(tmp_path / "world", config_of(source, alignment=a)).base_id for a in ({}, {"epochs": 0})]
    assert bases[0] != bases[1]
