"""Adapters of the authors' code and of PEFT, written here by hand, become a workspace's v_0."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from typer.testing import CliRunner

from language_models import write_language_model
from peso.cli.main import app
from peso.config import RunConfig, dump_config, make_config
from peso.errors import ConfigError, DataError, WorkspaceError
from peso.lm.released import read_released
from peso.semantic_ids.catalogue import code_token
from peso.training.base import load_state, read_base
from peso.training.importing import Imported, import_adapter
from peso.training.materials import load_materials
from peso.training.stream import run_stream
from streams import config
from worlds import LEVEL_SIZES, fill_workspace, tiny_dataset

RANK, ALPHA = 2, 4
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
KNOWN_CODES = [code_token(level, code) for level, size in enumerate(LEVEL_SIZES) for code in range(size)][::-1][2:]
"""What the checkpoint's tokenizer knows: not all codes, and in another order than ours."""


@dataclass(frozen=True)
class World:
    workspace: Path
    source: Path
    family: str


@pytest.fixture(scope="module", params=["smollm", "llama"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    fill_workspace(folder, tiny_dataset())
    return World(folder, write_language_model(folder / "model", request.param), request.param)


def config_of(world: World, **overrides: Any) -> RunConfig:
    adapter = {"r": RANK, "lora_alpha": ALPHA, "token_rows": "all"} | overrides.pop("adapter", {})
    training = {"base_epochs": 0, "epochs": 1} | overrides.pop("training", {})
    return config(
        backbone={"source": str(world.source)}, adapter=adapter, training=training, template="instruct",
        max_history=6, evaluation={"next_block": "off"}, **overrides,
    )  # fmt: skip


def their_backbone(world: World, folder: Path) -> tuple[LlamaForCausalLM, Any]:
    """With the codes added in the checkpoint's order; the tokenizer goes to its folder."""
    tokenizer = AutoTokenizer.from_pretrained(world.source)
    tokenizer.add_tokens(KNOWN_CODES)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(world.source)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    assert isinstance(model, LlamaForCausalLM)
    return model, tokenizer


def write_released(world: World, folder: Path, num_blocks: int = 3) -> list[LlamaForCausalLM]:
    """A run of the authors' layout; returns each block's model with everything in its weights.

    Earlier blocks keep embedding and head only, the last one the snapshots of all.
    """
    models = []
    state: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for block in range(num_blocks):
        model, _ = their_backbone(world, folder)
        tables = {
            "model.embed_tokens": model.model.embed_tokens.weight.detach(),
            "lm_head": model.lm_head.weight.detach(),
        }
        block_tables = {}
        for name, frozen in tables.items():
            state[f"{name}.original_module.weight"] = frozen.clone()
            moved = frozen + 0.1 * torch.randn(frozen.shape, generator=generator)
            block_tables[f"{name}.modules_to_save.default.weight"] = moved
        for name, module in model.named_modules():
            if name.split(".")[-1] in LAYERS:
                weight = module.weight
                assert isinstance(weight, Tensor)
                a = 0.3 * torch.randn(RANK, weight.shape[1], generator=generator)
                b = 0.3 * torch.randn(weight.shape[0], RANK, generator=generator)
                state |= {f"{name}.orig.weight": weight.detach().clone(), f"{name}.A": a, f"{name}.B": b}
                state |= {f"{name}.A_matrices.{block}": a.clone(), f"{name}.B_matrices.{block}": b.clone()}
                weight.data += ALPHA / RANK * b @ a
        state["model.norm.weight"] = model.model.norm.weight.detach().clone()
        (folder / f"block_{block}").mkdir(parents=True)
        save_file(block_tables, folder / f"block_{block}" / "modules_to_save.safetensors")
        model.config.tie_word_embeddings = False
        model.model.embed_tokens.weight = torch.nn.Parameter(
            block_tables["model.embed_tokens.modules_to_save.default.weight"]
        )
        model.lm_head.weight = torch.nn.Parameter(block_tables["lm_head.modules_to_save.default.weight"])
        models.append(model)
    last = folder / f"block_{num_blocks - 1}"
    save_file(state | block_tables, last / "model.safetensors")
    (last / "modules_to_save.safetensors").unlink()
    return models


def code_logits(model: torch.nn.Module, tokenizer: Any, text: str) -> Tensor:
    """Logits behind a text, of the codes that both vocabularies know, in one order."""
    tokens = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        logits: Tensor = model.eval()(input_ids=tokens).logits[0, -1]
    return logits[tokenizer.convert_tokens_to_ids(KNOWN_CODES)]


TEXT = "Items that a user chose :<a_1><b_2><c_3>, <a_0><b_0><c_1> Next:"


def started_from(world: World, imported: Imported, **overrides: Any) -> tuple[torch.nn.Module, Any]:
    """v_0 of a run that starts from what was imported."""
    adapter = {"start": imported.name} | overrides.pop("adapter", {})
    run = run_stream(world.workspace, config_of(world, adapter=adapter, method="frozen", **overrides), resume=True)
    materials = load_materials(world.workspace, make_config(run / "config.toml"))
    base = read_base(materials, world.workspace / "bases")
    model, _ = load_state(materials, base)
    return model, AutoTokenizer.from_pretrained(base.folder / "backbone")


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_version_of_the_authors_code(world: World, tmp_path: Path, block: int) -> None:
    """The last version from its own file, earlier ones from the last one's snapshots: equal logits for equal text."""
    theirs = write_released(world, tmp_path / "run")[block]
    imported = import_adapter(world.workspace, config_of(world), tmp_path / "run", block)
    assert (imported.rank, imported.num_layers, imported.tables) == (RANK, 14, ("embed_tokens", "lm_head"))
    assert (imported.num_codes, imported.num_codes_missing) == (len(KNOWN_CODES), 2)
    model, tokenizer = started_from(world, imported)
    expected = code_logits(theirs, AutoTokenizer.from_pretrained(tmp_path / "run"), TEXT)
    torch.testing.assert_close(code_logits(model, tokenizer, TEXT), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings=True.*:UserWarning", "ignore:.*save_embedding_layers.*")
def test_a_peft_adapter_with_whole_matrices(world: World, tmp_path: Path) -> None:
    plain, tokenizer = their_backbone(world, tmp_path)
    lora = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(LAYERS), modules_to_save=["embed_tokens", "lm_head"]
    )
    theirs = get_peft_model(plain, lora)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    theirs.save_pretrained(str(tmp_path))
    model, ours = started_from(world, import_adapter(world.workspace, config_of(world), tmp_path, 0))
    torch.testing.assert_close(
        code_logits(model, ours, TEXT), code_logits(theirs, tokenizer, TEXT), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [({"use_rslora": True}, "sets use_rslora"), ({"alpha_pattern": {"q_proj": 4}}, "sets alpha_pattern")],
)
def test_layers_with_a_scale_of_their_own_are_refused(
    world: World, tmp_path: Path, changed: dict[str, Any], complaint: str
) -> None:
    write_released(world, tmp_path / "run")
    facts = {"r": RANK, "lora_alpha": ALPHA} | changed
    (tmp_path / "run" / "adapter_config.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(DataError, match=complaint):
        import_adapter(world.workspace, config_of(world), tmp_path / "run", 2)


def test_a_configuration_without_a_scale_is_refused(world: World, tmp_path: Path) -> None:
    write_released(world, tmp_path / "run")
    (tmp_path / "run" / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="has no lora_alpha"):
        import_adapter(world.workspace, config_of(world), tmp_path / "run", 2)


def test_rows_of_codes_alone(world: World, tmp_path: Path) -> None:
    """Other rows are left out, and how far they had moved is told; a tied pair that moved apart does not fit."""
    write_released(world, tmp_path / "run")
    chosen = config_of(world, adapter={"token_rows": "codes"})
    if world.family == "smollm":
        with pytest.raises(ConfigError, match=r"trained them apart; use \"all\""):
            import_adapter(world.workspace, chosen, tmp_path / "run", 2)
        return
    imported = import_adapter(world.workspace, chosen, tmp_path / "run", 2)
    assert 0.2 < imported.largest_change_left_out < 0.6  # the largest of thousands of normal numbers times 0.1
    model, tokenizer = started_from(world, imported, adapter={"token_rows": "codes"})
    found = read_released(tmp_path / "run", 2).tables
    theirs = AutoTokenizer.from_pretrained(tmp_path / "run")
    for token in ("<a_1>", "<c_0>"):
        ours = model.get_input_embeddings()(torch.tensor([tokenizer.convert_tokens_to_ids(token)]))  # type: ignore[operator]
        torch.testing.assert_close(ours[0], found["embed_tokens"][theirs.convert_tokens_to_ids(token)])


def test_an_update_goes_on_from_it(world: World, tmp_path: Path) -> None:
    write_released(world, tmp_path / "run")
    imported = import_adapter(world.workspace, config_of(world), tmp_path / "run", 0)
    run = run_stream(world.workspace, config_of(world, adapter={"start": imported.name}, method="single"))
    assert (run / "result.json").exists()
    again = import_adapter(world.workspace, config_of(world), tmp_path / "run", 0)
    assert again == imported


def test_the_command_says_what_to_do_next(world: World, tmp_path: Path) -> None:
    write_released(world, tmp_path / "run")
    (tmp_path / "config.toml").write_text(dump_config(config_of(world)))
    command = ["import-adapter", str(tmp_path / "run"), "-w", str(world.workspace), "--block", "1"]
    done = CliRunner().invoke(app, [*command, "--config", str(tmp_path / "config.toml")])
    assert done.exit_code == 0, done.output
    assert "rank 2 on 14 layers, embed_tokens and lm_head; 13 codes known, 2 not." in done.output
    name = import_adapter(world.workspace, config_of(world), tmp_path / "run", 1).name
    assert f'adapter.start = "{name}"' in done.output


def test_what_does_not_fit_is_refused(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_released(world, run)

    def refused(kind: type[Exception], match: str, block: int = 2, **overrides: Any) -> None:
        with pytest.raises(kind, match=match):
            import_adapter(world.workspace, config_of(world, **overrides), run, block)

    refused(DataError, r"no version after block 7.*check the folder and --block", block=7)
    refused(ConfigError, r"adapter.r 3 and .* not the checkpoint's 2 and 4", adapter={"r": 3})
    refused(
        ConfigError,
        r"adapts 14 layers and this configuration 2; they differ in",
        adapter={"target_modules": ("q_proj",)},
    )
    with pytest.raises(ConfigError, match="needs the backbone it was trained on"):
        import_adapter(world.workspace, config(), run, 2)
    other = World(world.workspace, write_language_model(tmp_path / "other", world.family, seed=5), world.family)
    with pytest.raises(ConfigError, match="is not the checkpoint's; name the backbone"):
        import_adapter(world.workspace, config_of(other), run, 2)
    with pytest.raises(WorkspaceError, match=r"'adapter-0' is not an imported adapter"):
        run_stream(world.workspace, config_of(world, adapter={"start": "adapter-0"}, method="frozen"))
    for file in run.glob("tokenizer*"):
        file.unlink()
    refused(DataError, "holds no tokenizer")
    (run / "block_2" / "model.safetensors").write_bytes(b"half a file")
    refused(DataError, "cannot be read")


@pytest.mark.parametrize(
    ("key", "match"),
    [
        ("model.layers.0.self_attn.q_proj.A_dir_matrices.0", "belongs to SD-LoRA"),
        ("model.layers.0.mlp.down_proj.A", "1 matrices A and 0 matrices B"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, key: str, match: str) -> None:
    (tmp_path / "block_0").mkdir()
    save_file({key: torch.zeros(2, 3)}, tmp_path / "block_0" / "model.safetensors")
    with pytest.raises(DataError, match=match):
        read_released(tmp_path, 0)
    save_file(
        {"base_model.model.model.layers.0.q_proj.lora_magnitude_vector": torch.zeros(2)},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(DataError, match="neither A, B, embed_tokens nor lm_head"):
        read_released(tmp_path, 0)
