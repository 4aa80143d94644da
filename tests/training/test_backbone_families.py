"""Language models of several families, from a folder: read rightly, trained, updated and exported to plain PEFT."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from language_models import FAMILIES, WORDS, write_language_model
from peso.config import BackboneConfig, RunConfig
from peso.data.dataset import Dataset
from peso.decoding.recommend import Recommender
from peso.decoding.trie import build_trie
from peso.errors import ConfigError
from peso.files import read_json
from peso.lm.backbone import build_backbone, load_weights
from peso.lm.device import make_ready
from peso.lm.new_tokens import TitledItems
from peso.lm.templates import INSTRUCT_PREFIX, INSTRUCT_SEPARATOR, INSTRUCT_SUFFIX
from peso.lm.vocabulary import build_vocabulary
from peso.semantic_ids.catalogue import code_token
from peso.training.backbone_check import check_backbone
from peso.training.base import load_state, read_base, validation_rows
from peso.training.code_losses import mean_loss
from peso.training.materials import Materials, Reader, build_reader, load_materials
from peso.training.stream import run_stream
from peso.types import TemplateName
from streams import config
from worlds import LEVEL_SIZES, fill_workspace, tiny_codes, tiny_dataset

ALL_LINEAR = {"r": 2, "lora_alpha": 4, "target_modules": ("all-linear",)}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp("model") / family.replace(" ", "_"), family)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    dataset = tiny_dataset()
    titles = [f"the {WORDS[n % 8]} {WORDS[8 + n % 9]}" for n in range(dataset.num_items)]
    fill_workspace(
        folder,
        Dataset(
            dataset.user_ids, dataset.item_ids, titles, dataset.event_user, dataset.event_item, dataset.event_block,
            dataset.num_blocks, "tiny, with titles",
        ),
    )  # fmt: skip
    return folder


def config_of(source: Path, template: TemplateName = "instruct", **overrides: object) -> RunConfig:
    backbone = {"source": str(source), "new_token_rows": "title"}
    return config(backbone=backbone, adapter=ALL_LINEAR, template=template, max_history=6, **overrides)


def reader_of(workspace: Path, chosen: RunConfig) -> tuple[Materials, Reader]:
    materials = load_materials(workspace, chosen)
    model, tokenizer = build_backbone(
        chosen.backbone, materials.semantic_ids.level_sizes, chosen.seed, materials.known_titles
    )
    return materials, build_reader(materials, make_ready(model), tokenizer)


@pytest.mark.parametrize("template", ["sid", "instruct"])
def test_peso_computes_what_the_model_computes(folder: Path, workspace: Path, template: TemplateName) -> None:
    check_backbone(*reader_of(workspace, config_of(folder, template)))


def test_a_prompt_is_the_text_as_the_tokenizer_writes_it(folder: Path, workspace: Path) -> None:
    materials, reader = reader_of(workspace, config_of(folder))
    _, tokenizer = build_backbone(BackboneConfig(source=str(folder)), LEVEL_SIZES, 0)
    items = np.array([3, 1, 7])
    text = INSTRUCT_SEPARATOR.join(materials.semantic_ids.text(item) for item in items)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    written = tokenizer.encode(f"{INSTRUCT_PREFIX}{text}{INSTRUCT_SUFFIX}", add_special_tokens=False)
    assert reader.builder.prompt(items).tolist() == [begin, *written]


def test_lists_are_those_of_every_item_scored_by_the_stock_model(folder: Path, workspace: Path) -> None:
    """The exact search against log-softmax of the stock model's logits, item by item."""
    chosen = config_of(folder, decoding={"beam_width": 40, "num_recommendations": 5, "normaliser": "vocabulary"})
    materials, reader = reader_of(workspace, chosen)
    codes = materials.semantic_ids.codes
    prompt = reader.builder.prompt(np.array([4, 2]))
    recommender = Recommender(reader.model, reader.builder.vocabulary, chosen.decoding)
    items, scores = recommender.recommend([prompt], build_trie(codes, np.arange(len(codes))))

    stock, _ = build_backbone(chosen.backbone, LEVEL_SIZES, 0, materials.known_titles)
    tokens = reader.builder.vocabulary.item_token_ids
    whole = torch.from_numpy(np.concatenate([np.tile(prompt, (len(codes), 1)), tokens], axis=1))
    with torch.no_grad():
        log_p = torch.log_softmax(stock.eval()(input_ids=whole).logits.double(), dim=-1)
    per_code = log_p[:, len(prompt) - 1 : -1].gather(2, torch.from_numpy(tokens)[..., None])
    expected = per_code.squeeze(2).sum(1)
    best = expected.argsort(descending=True)[:5]
    assert items[0].tolist() == best.tolist()
    torch.testing.assert_close(torch.from_numpy(scores[0]).double(), expected[best], rtol=1e-4, atol=1e-4)


def test_new_rows_start_from_the_mean(folder: Path) -> None:
    before = load_weights(folder)
    model, tokenizer = build_backbone(BackboneConfig(source=str(folder)), LEVEL_SIZES, 0)
    new = build_vocabulary(tokenizer, tiny_codes(), LEVEL_SIZES).all_token_ids
    known = min(new)
    for module in ("get_input_embeddings", "get_output_embeddings"):
        old, rows = getattr(before, module)().weight, getattr(model, module)().weight
        assert torch.equal(rows[:known], old[:known])
        torch.testing.assert_close(rows[new], old[:known].mean(0).expand(len(new), -1))
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    assert embedding.num_embeddings >= len(tokenizer)


def test_new_rows_start_from_titles(folder: Path) -> None:
    """Code 1 of level 0 belongs to two items with titles; its row is the mean of their titles' mean rows."""
    codes = np.array([[1, 0, 0], [1, 2, 3], [2, 2, 4]])
    titles = ["red guitar", "the loud golden horn", ""]
    backbone = BackboneConfig(source=str(folder), new_token_rows="title")
    model, tokenizer = build_backbone(backbone, LEVEL_SIZES, 0, TitledItems(titles, codes))
    ids = [tokenizer.encode(title, add_special_tokens=False) for title in titles[:2]]
    known = tokenizer.convert_tokens_to_ids(code_token(0, 0))
    for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        assert isinstance(weight, torch.Tensor)
        by_title = [weight[one].double().mean(0) for one in ids]

        def row(level: int, code: int, weight: torch.Tensor = weight) -> torch.Tensor:
            return weight[tokenizer.convert_tokens_to_ids(code_token(level, code))].double()

        torch.testing.assert_close(row(0, 1), (by_title[0] + by_title[1]) / 2, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(row(1, 2), by_title[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(row(0, 2), weight[:known].double().mean(0), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="no item of block 0 has a title"):
        build_backbone(backbone, LEVEL_SIZES, 0, TitledItems(["", " ", ""], codes))


@pytest.mark.parametrize("template", ["sid", "instruct"])
def test_the_whole_stream(folder: Path, family: str, workspace: Path, template: TemplateName) -> None:
    """Base, updates and lists; the last version loads in plain PEFT with the same logits."""
    if family not in ("llama", "qwen3", "gpt2"):
        pytest.skip("the stream is run with a Llama, a Qwen3 and a GPT-2; the others are checked pass by pass")
    chosen = config_of(
        folder, template, training={"epochs": 4, "learning_rate": 1e-2, "token_rows_learning_rate": 1e-2}
    )
    run = run_stream(workspace, chosen)
    result = read_json(run / "result.json", "result")
    assert result["invalid_items"] == result["duplicate_items"] == 0
    assert [block["block"] for block in result["blocks"]] == [1, 2]
    losses = [epoch["train_loss"] for epoch in result["training"] if epoch["block"] == 1]
    assert losses[-1] < losses[0] - 0.1

    materials = load_materials(workspace, chosen)
    base, version = read_base(materials, workspace / "bases"), run / "adapters" / "block_2"
    ours, reader = load_state(materials, base, version)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.folder / "backbone"), str(version))
    tokens = torch.from_numpy(reader.builder.prompt(np.array([3, 5])))[None]
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids=tokens).logits, theirs(input_ids=tokens).logits, rtol=1e-4, atol=1e-4)


def test_past_adapters_beside_transposed_matrices(workspace: Path, tmp_path: Path) -> None:
    """GPT-2 keeps its matrices transposed; the past acts there too, and is saved with the current adapter."""
    folder = write_language_model(tmp_path / "model", "gpt2")
    off = {"next_block": "off"}
    chosen = config_of(folder, method="sum_lora", training={"epochs": 2, "learning_rate": 1e-2}, evaluation=off)
    run = run_stream(workspace, chosen)
    result = read_json(run / "result.json", "result")
    kept = next(e for e in result["training"] if e["block"] == 2 and e["selected"])
    materials = load_materials(workspace, chosen)
    base, version = read_base(materials, workspace / "bases"), run / "adapters" / "block_2"
    _, reader = load_state(materials, base, version)  # of rank 3 r
    loss = mean_loss(reader.model, reader.likelihood, reader.builder, validation_rows(materials, 2))
    assert loss == pytest.approx(kept["valid_loss"], abs=1e-4)


def test_a_backbone_in_bfloat16(workspace: Path, tmp_path: Path) -> None:
    """Weights stay as they were saved; what trains is float32; a run ends."""
    folder = write_language_model(tmp_path / "model", "qwen3", torch.bfloat16)
    chosen = config_of(folder, training={"epochs": 1, "precision": "bfloat16"}, evaluation={"next_block": "off"})
    run = run_stream(workspace, chosen)
    materials = load_materials(workspace, chosen)
    model, _ = load_state(materials, read_base(materials, workspace / "bases"), run / "adapters" / "block_2")
    kinds = {parameter.dtype: "lora" in name or "delta" in name for name, parameter in model.named_parameters()}
    assert kinds == {torch.bfloat16: False, torch.float32: True}


def test_histories_beyond_the_models_reach_are_refused(folder: Path, workspace: Path, family: str) -> None:
    too_long, beyond_windows = (config_of(folder).model_copy(update={"max_history": n}) for n in (200, 50))
    with pytest.raises(ConfigError, match=r"has 512 positions, and max_history 200 .* lower one"):
        check_backbone(*reader_of(workspace, too_long))
    if "gemma" in family:
        with pytest.raises(ConfigError, match="has 256 tokens in its attention window"):
            check_backbone(*reader_of(workspace, beyond_windows))


def test_a_model_that_does_something_else_is_refused(workspace: Path, tmp_path: Path) -> None:
    """A head with a bias, which reading rows would miss."""
    chosen = config_of(write_language_model(tmp_path / "model", "llama"))
    materials, reader = reader_of(workspace, chosen)
    head = reader.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.linspace(-1, 1, head.weight.shape[0]))
    with pytest.raises(ConfigError, match="logits of LlamaForCausalLM are not what peso would compute"):
        check_backbone(materials, reader)


def test_a_tokenizer_without_begin_and_end_is_refused(workspace: Path, tmp_path: Path) -> None:
    folder = write_language_model(tmp_path / "model", "llama")
    file = folder / "tokenizer_config.json"
    facts = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("bos_token", "eos_token")}
    file.write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match="neither a begin nor an end token"):
        reader_of(workspace, config_of(folder))
