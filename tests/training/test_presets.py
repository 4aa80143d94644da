"""The configurations for language models: each runs in miniature, and the paper's is the released objective."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoModelForCausalLM

from language_models import write_language_model
from peso.config import RunConfig, make_config
from peso.data.examples import targets_of_block
from peso.errors import ConfigError
from peso.files import read_json
from peso.lm.adapters import attach_adapter, read_token_rows, save_adapter, stored_token_rows
from peso.lm.backbone import build_backbone, load_tokenizer, save_backbone
from peso.lm.low_rank import read_low_rank
from peso.lm.rows import Rows
from peso.lm.templates import INSTRUCT_PREFIX, INSTRUCT_SEPARATOR, INSTRUCT_SUFFIX
from peso.methods.registry import build_method
from peso.training.base import adapter_parts, load_state, read_base, training_rows
from peso.training.materials import Materials, Reader, build_reader, load_materials
from peso.training.stage import Stage
from peso.training.steps import add_gradient
from peso.training.stream import run_stream
from peso.training.update_stage import update_stage
from peso.types import ProximalForm
from streams import config
from views import StoredView
from worlds import fill_workspace, tiny_dataset

PRESETS = ("paper", "default_llm")
BATCH = 16


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    fill_workspace(folder, tiny_dataset())
    return folder


@pytest.fixture(scope="module", params=["smollm", "llama"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied head, as Llama-3.2-1B has it, and one of its own."""
    return write_language_model(tmp_path_factory.mktemp("model") / "model", request.param)


def preset(name: str, source: Path, **overrides: Any) -> RunConfig:
    return make_config(Path(name), {"backbone": {"source": str(source)}} | overrides)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs_in_miniature(workspace: Path, source: Path, name: str) -> None:
    chosen = preset(name, source, evaluation={"next_block": "off"}, training={"base_epochs": 1, "epochs": 1})
    run = run_stream(workspace, chosen)
    result = read_json(run / "result.json", "result")
    assert result["invalid_items"] == result["duplicate_items"] == 0
    assert result["method"] == "peso"
    materials = load_materials(workspace, chosen)
    base, version = read_base(materials, workspace / "bases"), run / "adapters" / "block_2"
    weights = load_file(version / "adapter_model.safetensors")
    rows = [tensor for key, tensor in weights.items() if ".lora_" not in key]
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32 if name == "paper" else torch.bfloat16}
    ours, reader = load_state(materials, base, version)
    assert {p.dtype for p in ours.parameters() if p.requires_grad} == {torch.float32}
    model = AutoModelForCausalLM.from_pretrained(base.folder / "backbone")
    whole = len(load_tokenizer(base.folder / "backbone"))
    assert {len(tensor) for tensor in rows} == {whole if name == "paper" else sum(materials.semantic_ids.level_sizes)}
    assert len(rows) == (1 if name == "default_llm" and model.config.tie_word_embeddings else 2)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings=True.*")
        theirs = PeftModel.from_pretrained(model, str(version)).eval()
    tokens = torch.from_numpy(reader.builder.prompt(np.array([3, 5])))[None]
    with torch.no_grad():
        logits = ours.eval()(input_ids=tokens).logits
        torch.testing.assert_close(logits, theirs(input_ids=tokens).logits, rtol=1e-4, atol=1e-4)


def adapted(workspace: Path, chosen: RunConfig, folder: Path) -> tuple[Materials, Reader, PeftModel]:
    """The backbone of a configuration, saved, with an adapter that has moved in every part, saved too."""
    materials = load_materials(workspace, chosen)
    model, tokenizer = build_backbone(chosen.backbone, materials.semantic_ids.level_sizes, chosen.seed)
    save_backbone(model, tokenizer, folder / "backbone")
    reader = build_reader(materials, model, tokenizer)
    peft_model = attach_adapter(model, chosen.adapter, reader.builder.vocabulary.all_token_ids, chosen.seed)
    move(peft_model, folder / "adapter", 0.05, seed=1)
    return materials, reader, peft_model


def move(model: PeftModel, folder: Path, length: float, seed: int) -> None:
    """Moves everything that trains, and saves the adapter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(length * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    save_adapter(model, folder)


def plain_peft(folder: Path, adapter: str) -> PeftModel:
    """What `adapted` saved, as a program without peso would train it, in float64."""
    plain = AutoModelForCausalLM.from_pretrained(folder / "backbone")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings=True.*")
        model = PeftModel.from_pretrained(plain, str(folder / adapter), is_trainable=True)
    return model.double()


def written_out(materials: Materials, rows: Rows) -> list[tuple[str, str]]:
    """Prompt and response of every target."""
    ids, items = materials.semantic_ids, materials.dataset.event_item
    texts = []
    for start, target in zip(rows.start, rows.first_target, strict=True):
        history = INSTRUCT_SEPARATOR.join(ids.text(item) for item in items[start:target])
        texts.append((f"{INSTRUCT_PREFIX}{history}{INSTRUCT_SUFFIX}", ids.text(items[target])))
    return texts


def released_loss(model: torch.nn.Module, tokenizer: Any, texts: list[tuple[str, str]]) -> torch.Tensor:
    """Cross-entropy of stock logits / 0.8 over the whole vocabulary, on the response's tokens and the end token.

    Each text is written out, padded on the right and masked, as a fine-tuning script without peso would.
    """
    rows = []
    for prompt, response in texts:
        head = [tokenizer.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]
        rows.append((head, [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]))
    longest = max(len(head) + len(tail) for head, tail in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (head, tail) in enumerate(rows):
        end = len(head) + len(tail)
        ids[row, :end] = torch.tensor(head + tail)
        labels[row, len(head) : end] = torch.tensor(tail)
        mask[row, :end] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1] / 0.8
    return functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def released_proximal(model: torch.nn.Module, before: dict[str, torch.Tensor], form: str) -> torch.Tensor:
    """KL(softmax(v_t) || softmax(v_{t-1})) of every A and B: Eq. 12, or "official", the released code's lines."""
    divergences = []
    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            continue
        p = functional.softmax(parameter.flatten(), dim=0)
        q = functional.softmax(before[name.replace(".default", "")].double().flatten(), dim=0)
        if form == "official":
            p, q = p + 1e-8, q + 1e-8
            p, q = p / p.sum(), q / q.sum()
        divergences.append(torch.clamp(torch.sum(p * torch.log(p / q)), min=0.0))
    num_modules = len(divergences) // 2
    return torch.stack(divergences).sum() / (num_modules if form == "official" else 1)


def assert_equal_gradients(ours: PeftModel, theirs: PeftModel) -> None:
    """Of every trainable tensor, to 1e-5 of its largest element."""
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    compared = 0
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            expected, found = gradients[name], parameter.grad
            assert expected is not None and found is not None
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
            compared += 1
    assert compared == len(gradients) == 2 * 7 * 2 + 2


def test_the_papers_loss_is_the_released_objective(workspace: Path, source: Path, tmp_path: Path) -> None:
    """16 examples in two passes: value and gradient, against text, PEFT and plain cross-entropy."""
    chosen = preset("paper", source, adapter={"lora_dropout": 0.0}, training={"precision": "float32"})
    materials, reader, model = adapted(workspace, chosen, tmp_path)
    parts = adapter_parts(model)
    rows = training_rows(materials, targets_of_block(materials.dataset, 0, "train")[:BATCH])
    stage = Stage(
        name="test", key="", block=0, parts=parts, builder=reader.builder, train_rows=rows, valid_rows=rows, epochs=1,
        learning_rates=dict.fromkeys(parts, 1e-3), batch_targets=BATCH, weight_decay=0.0, training=chosen.training,
        seed=0,
    )  # fmt: skip
    model.train()
    num_tokens = BATCH * (materials.semantic_ids.num_levels + 1)
    ours = float(add_gradient(reader.model, reader.likelihood, stage, np.arange(BATCH))) / num_tokens

    theirs, tokenizer = plain_peft(tmp_path, "adapter"), load_tokenizer(tmp_path / "backbone")
    texts = written_out(materials, rows)
    expected = torch.stack([released_loss(theirs, tokenizer, texts[half : half + 8]) for half in (0, 8)]).mean()
    expected.backward()
    assert ours == pytest.approx(expected.item(), abs=1e-5)
    assert_equal_gradients(model, theirs)


@pytest.mark.parametrize("form", ["paper", "official"])
def test_an_updates_loss_is_the_released_objective(
    workspace: Path, source: Path, tmp_path: Path, form: ProximalForm
) -> None:
    """A step of block 1, cross-entropy + 2 KL to the state after block 0: value and gradient.

    The released trainer adds the term to every pass, and averages passes.
    """
    chosen = preset(
        "paper", source, adapter={"lora_dropout": 0.0}, training={"precision": "float32"}, proximal={"form": form}
    )
    assert chosen.proximal.strength == 2.0
    materials, reader, model = adapted(workspace, chosen, tmp_path)
    parts = adapter_parts(model)
    method, view = build_method(chosen), StoredView([read_low_rank(model)])
    targets = targets_of_block(materials.dataset, 1, "train")[:BATCH]
    stage = update_stage(materials, reader, parts, method, view, targets, "block_1")
    penalty = method.penalty(parts["lora"].groups(parts["lora"].snapshot()), view)
    assert stage.add_penalty is not None and stage.pull is None and penalty is not None
    move(model, tmp_path / "moved", 0.1, seed=2)
    model.train()
    num_tokens = BATCH * (materials.semantic_ids.num_levels + 1)
    cross_entropy = float(add_gradient(reader.model, reader.likelihood, stage, np.arange(BATCH))) / num_tokens
    stage.add_penalty()
    term = float(penalty(parts["lora"].groups(parts["lora"].data.detach())))

    theirs, tokenizer = plain_peft(tmp_path, "moved"), load_tokenizer(tmp_path / "backbone")
    before = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    texts = written_out(materials, stage.train_rows)
    passes = [
        released_loss(theirs, tokenizer, texts[half : half + 8]) + 2.0 * released_proximal(theirs, before, form)
        for half in (0, 8)
    ]
    expected = torch.stack(passes).mean()
    expected.backward()
    assert cross_entropy + term == pytest.approx(expected.item(), abs=1e-5)
    assert term > 0.01  # what is compared is not lost beside the cross-entropy
    assert_equal_gradients(model, theirs)


def test_what_an_end_token_needs(workspace: Path, source: Path) -> None:
    for wrong in ({"template": "sid"}, {"training": {"normaliser": "level"}}):
        with pytest.raises(ConfigError, match=r"training.end_token needs template \"instruct\" and"):
            preset("paper", source, **wrong)


def test_temperature_divides_logits(workspace: Path) -> None:
    """Of a level's softmax too: at a very high one every code is as likely as any other."""
    materials = load_materials(workspace, config())
    model, tokenizer = build_backbone(config().backbone, materials.semantic_ids.level_sizes, 0)
    reader = build_reader(materials, model, tokenizer)
    rows = training_rows(materials, targets_of_block(materials.dataset, 0, "train")[:4])
    batch = reader.builder.batch(rows)
    with torch.no_grad():
        hot = reader.likelihood.negative_log_likelihood(model, batch, temperature=1e6)
    uniform = torch.tensor([float(np.log(size)) for size in materials.semantic_ids.level_sizes])
    torch.testing.assert_close(hot, uniform.expand(len(hot), -1), rtol=1e-4, atol=1e-4)


def test_whole_tables_stay_exact_over_a_narrow_backbone(workspace: Path, tmp_path: Path) -> None:
    """Rows that train beside a bfloat16 backbone are float32, saved and read without rounding."""
    folder = write_language_model(tmp_path / "model", "smollm", torch.bfloat16)
    chosen = preset("paper", folder, method="frozen")
    run = run_stream(workspace, chosen)
    materials = load_materials(workspace, chosen)
    version = run / "adapters" / "block_0"
    model, _ = load_state(materials, read_base(materials, workspace / "bases"), version)
    assert isinstance(model, PeftModel)
    stored = stored_token_rows(version)
    rows = read_token_rows(model)
    assert rows.keys() == stored.keys() == {"embed_tokens.rows", "lm_head.rows"}
    for name, values in rows.items():
        assert values.dtype == torch.float32 and torch.equal(values, stored[name])
        assert not torch.equal(values, values.bfloat16().float())
