"""The contract suite: every method of the registry on a small world."""

from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from torch import Tensor

from peso.files import read_json
from peso.lm.adapters import (
    carried_of,
    stored_token_rows,
    stored_update,
    token_row_parameters,
    write_token_rows,
)
from peso.lm.backbone import load_weights
from peso.lm.low_rank import LowRank, adapted_layers, read_low_rank, summed, write_low_rank
from peso.lm.past_adapters import freeze_past, magnitude_parameters, whole_update
from peso.lm.quick_stack import layer_by_layer
from peso.lm.rows import Rows
from peso.methods.base import BlockView, Leg
from peso.methods.inf_lora import PAST_ENERGY
from peso.methods.registry import METHODS, build_method
from peso.training.base import Base, load_base, load_state, read_base, validation_rows
from peso.training.block_view import RunView
from peso.training.code_losses import mean_loss
from peso.training.materials import Materials, load_materials
from peso.training.stream import run_stream
from peso.training.update import run_update
from peso.types import MetricName, PastName, StartName
from streams import QUICK, config, fill

RANK, SCALE = 2, 2.0
LAST = 2
CUMULATIVE = list(product(("sum_lora", "sd_lora"), get_args(PastName), get_args(StartName)))
METRICS = [metric for metric in get_args(MetricName) if metric != "softmax"]
VARIANTS: dict[str, dict[str, Any]] = {method: {"method": method} for method in METHODS} | {
    **{
        f"{method} {past} {start}": {"method": method, "cumulative": {"past": past, "start": start}}
        for method, past, start in CUMULATIVE
        if (past, start) != ("all", "inherit")  # the default, which the method's own name stands for
    },
    "peso most of the way": {"method": "peso", "proximal": {"share": 0.9}},
    "peso per rank": {"method": "peso", "proximal": {"form": "per_rank"}},
    **{f"peso {metric}": {"method": "peso", "proximal": {"metric": metric}} for metric in METRICS},
    # A handful of steps on a tiny world: the default rate is one for hundreds.
    "full": {"method": "full", "full": {"learning_rate": 1e-3}},
    "full, averaged": {"method": "full", "full": {"learning_rate": 1e-3, "share": "auto"}},
}
RANKS = {name: (2 if "latest" in name else 3) * RANK for name in VARIANTS if name.startswith(("sum_lora", "sd_lora"))}
RANKS |= {"inf_lora": 3 * RANK, "o_lora": 3 * RANK, "lsat": 2 * RANK}
STARTS_ANEW = ("fresh", "o_lora")
"""In the names of methods whose adapter is a new one on each block, which a handful of steps hardly moves."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("methods"))


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def materials_of(workspace: Path, variant: str) -> Materials:
    return load_materials(workspace, config(**QUICK | VARIANTS[variant]))


def run_of(workspace: Path, variant: str) -> Path:
    return run_stream(workspace, materials_of(workspace, variant).config, resume=True)


def base_of(workspace: Path, variant: str) -> tuple[Materials, Base]:
    run_of(workspace, variant)
    materials = materials_of(workspace, variant)
    return materials, read_base(materials, workspace / "bases")


def test_a_run_learns_and_names_real_items(workspace: Path, variant: str) -> None:
    folder = run_of(workspace, variant)
    result = read_json(folder / "result.json", "result")
    assert result["invalid_items"] == result["duplicate_items"] == 0
    updates = [epoch for epoch in result["training"] if epoch["block"] > 0]
    assert bool(updates) == (variant != "frozen")
    if updates:
        frozen = read_json(run_of(workspace, "frozen") / "result.json", "result")
        gained = result["mean"]["log_likelihood"] - frozen["mean"]["log_likelihood"]
        assert gained > (0 if any(word in variant for word in STARTS_ANEW) else 0.01)
    assert not list(folder.glob("checkpoint*"))


def test_a_version_is_what_was_trained(workspace: Path, variant: str, tmp_path: Path) -> None:
    """A second training of the last block gives the same bytes, and the stored version the loss of the model."""
    materials, base = base_of(workspace, variant)
    folder = run_of(workspace, variant) / "adapters"
    method = build_method(materials.config)
    trained = run_update(materials, base, method, folder, LAST, tmp_path / "checkpoint.safetensors")
    model, update = trained.model, trained.update
    again, reader = load_state(materials, base, carried_of(folder / f"block_{LAST}"))
    stored = {name: parameter.clone() for name, parameter in again.named_parameters()}
    if isinstance(again, PeftModel):
        assert isinstance(model, PeftModel)
        ended, loaded = whole_update(model), read_low_rank(again)
        for name in ended.a:
            torch.testing.assert_close(ended.b[name] @ ended.a[name], loaded.b[name] @ loaded.a[name])
        for (_, ours), (_, theirs) in zip(token_row_parameters(model), token_row_parameters(again), strict=True):
            assert torch.equal(ours, theirs)
    else:
        assert all(torch.equal(parameter, stored[name]) for name, parameter in model.named_parameters())
    if len(update.epochs) == materials.config.training.epochs:  # one leg: its loss is the version's
        loss = mean_loss(reader.model, reader.likelihood, reader.builder, validation(materials))
        assert loss == pytest.approx(update.epochs[0]["valid_loss"], abs=1e-5)


def validation(materials: Materials) -> Rows:
    return validation_rows(materials, LAST)


def test_only_its_own_parameters_change(workspace: Path, variant: str, tmp_path: Path) -> None:
    materials, base = base_of(workspace, variant)
    backbone = load_file(base.folder / "backbone" / "model.safetensors")
    folder = run_of(workspace, variant) / "adapters"
    method = build_method(materials.config)
    model = run_update(materials, base, method, folder, 1, tmp_path / "checkpoint.safetensors").model
    trains_backbone = method.trains == "all_weights"
    seen = set()
    for name, parameter in model.named_parameters():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".token_adapter", "")
        if plain in backbone:
            assert torch.equal(parameter, backbone[plain]) != trains_backbone, name
            seen.add(plain)
    assert seen == backbone.keys()
    assert (folder / "block_1" / "backbone").exists() == trains_backbone


def test_storage_is_as_documented(workspace: Path, variant: str) -> None:
    folder = run_of(workspace, variant) / "adapters" / f"block_{LAST}"
    if (folder / "backbone").exists():
        assert variant.startswith("full") and not list(folder.glob("adapter*"))
        assert load_weights(folder / "backbone").num_parameters() > 0
        return
    base = read_base(materials_of(workspace, variant), workspace / "bases")
    model = PeftModel.from_pretrained(load_weights(base.folder / "backbone"), str(folder))
    peft_config = model.peft_config["default"]
    assert isinstance(peft_config, LoraConfig)
    assert peft_config.r == RANKS.get(variant, RANK)
    assert peft_config.lora_alpha == SCALE * peft_config.r
    ours, _reader = load_state(materials_of(workspace, variant), base, folder)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids=tokens).logits, model(input_ids=tokens).logits, rtol=1e-4, atol=1e-5)


def version_bytes(run: Path) -> list[int]:
    """Of each block: the version that recommends and, where it is another, what the next block starts from."""
    versions = sorted((run / "adapters").glob("block_*"))
    return [sum(file.stat().st_size for file in version.rglob("*.safetensors")) for version in versions]


def test_what_a_run_keeps_does_not_grow_with_blocks(workspace: Path) -> None:
    """PESO's versions are as large as a single LoRA's, and two of them are enough to go on; a past adapter adds one."""
    sizes = {name: version_bytes(run_of(workspace, name)) for name in ("single", "peso", "sum_lora", "full")}
    assert len(set(sizes["single"])) == 1
    assert sizes["peso"][0] == sizes["single"][0], "where nothing was carried on, the version is all there is"
    assert set(sizes["peso"]) <= {sizes["single"][0], 2 * sizes["single"][0]}
    plain, of_two, of_three = sizes["sum_lora"]
    assert of_three - of_two == pytest.approx(of_two - plain, rel=0.01) and of_two > plain
    assert sizes["full"][1] == sizes["full"][2] > plain


def view_of(workspace: Path, variant: str, block: int) -> tuple[PeftModel, RunView, Path]:
    materials, base = base_of(workspace, variant)
    folder = run_of(workspace, variant) / "adapters"
    model, reader = load_base(materials, base)
    return model, RunView(materials, reader, model, folder, block), folder


def leg_of(workspace: Path, variant: str, block: int) -> tuple[Leg, BlockView, Path]:
    _model, view, folder = view_of(workspace, variant, block)
    (leg,) = build_method(config(**QUICK | VARIANTS[variant])).legs(view)
    return leg, view, folder


def are_equal(ours: LowRank, theirs: LowRank) -> bool:
    return all(torch.equal(ours.a[k], theirs.a[k]) and torch.equal(ours.b[k], theirs.b[k]) for k in ours.a)


@pytest.mark.parametrize("variant_name", [name for name in RANKS if name.startswith(("sum_lora", "sd_lora"))])
def test_cumulative_starts_by_definition(workspace: Path, variant_name: str) -> None:
    leg, _view, folder = leg_of(workspace, variant_name, LAST)
    before = stored_update(folder / "block_1", RANK)
    if "fresh" in variant_name:
        assert all(float(b.abs().max()) == 0 for b in leg.current.b.values())
        assert not are_equal(leg.current, before)
    else:
        assert are_equal(leg.current, before)
    blocks = [1] if "latest" in variant_name else [0, 1]
    assert len(leg.frozen) == len(blocks)
    for past, block in zip(leg.frozen, blocks, strict=True):
        state = stored_update(folder / f"block_{block}", RANK)
        for name in state.a:
            torch.testing.assert_close(past.a[name], state.a[name] / state.a[name].norm())
            torch.testing.assert_close(past.b[name], state.b[name] / state.b[name].norm())


@pytest.mark.parametrize("learns_magnitudes", [False, True])
def test_the_forward_pass_is_the_formula(workspace: Path, learns_magnitudes: bool) -> None:
    """W_0 + s (sum_i m_i B^_i A^_i + m B A), against products written out in float64, and its gradients."""
    materials, base = base_of(workspace, "sum_lora")
    model, _reader = load_base(materials, base)
    leg, _, _ = leg_of(workspace, "sum_lora", LAST)
    write_low_rank(model, leg.current)
    freeze_past(model, leg.frozen, learns_magnitudes)
    generator = torch.Generator().manual_seed(0)
    for _, magnitudes in magnitude_parameters(model):
        magnitudes.data.uniform_(0.5, 1.5, generator=generator)
    assert bool(magnitude_parameters(model)) == learns_magnitudes
    layer_name, layer = next(iter(adapted_layers(model).items()))
    x = torch.randn(3, 5, layer.in_features or 0, generator=generator)
    weight = layer.get_base_layer().weight
    assert isinstance(weight, Tensor)
    m = dict(magnitude_parameters(model)).get(f"{layer_name}.magnitudes", torch.ones(3)).detach().double()
    wanted = weight.detach().double()
    for factor, piece in zip(m, [*leg.frozen, leg.current], strict=True):
        wanted = wanted + SCALE * factor * piece.b[layer_name].double() @ piece.a[layer_name].double()
    torch.testing.assert_close(layer(x).double(), x.double() @ wanted.T, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):  # PEFT's own way, with the past beside it
        torch.testing.assert_close(layer(x).double(), x.double() @ wanted.T, rtol=0.05, atol=0.05)
    if learns_magnitudes:
        layer(x).square().sum().backward()
        magnitudes = dict(magnitude_parameters(model))[f"{layer_name}.magnitudes"]
        outputs = x.double() @ wanted.T
        for number, piece in enumerate([*leg.frozen, leg.current]):
            direction = SCALE * x.double() @ (piece.b[layer_name].double() @ piece.a[layer_name].double()).T
            assert magnitudes.grad is not None
            assert float(magnitudes.grad[number]) == pytest.approx(float(2 * (outputs * direction).sum()), rel=1e-4)


def test_the_whole_stack_sees_the_past(workspace: Path) -> None:
    """The written-out stack, the layers one by one and PEFT's own adapter of the summed rank agree."""
    materials, base = base_of(workspace, "sum_lora")
    model, reader = load_base(materials, base)
    leg, _, folder = leg_of(workspace, "sum_lora", LAST)
    write_low_rank(model, leg.current)
    write_token_rows(model, stored_token_rows(folder / "block_1"))
    freeze_past(model, leg.frozen, learns_magnitudes=False)
    rows = validation(materials)
    together = mean_loss(reader.model, reader.likelihood, reader.builder, rows)
    with layer_by_layer(reader.model):
        one_by_one = mean_loss(reader.model, reader.likelihood, reader.builder, rows)
    freeze_past(model, [], learns_magnitudes=False)
    without = mean_loss(reader.model, reader.likelihood, reader.builder, rows)
    assert together == pytest.approx(one_by_one, abs=1e-5)
    assert abs(together - without) > 1e-3
    assert summed([*leg.frozen, leg.current]).rank == 3 * RANK


def test_inf_lora_designs_a_outside_the_past(workspace: Path) -> None:
    """In every layer all but a twentieth of the energy of earlier blocks' inputs is out of A's reach."""
    leg, view, folder = leg_of(workspace, "inf_lora", LAST)
    past = [stored_update(folder / f"block_{block}", RANK) for block in range(LAST)]
    assert [are_equal(kept, stored) for kept, stored in zip(leg.frozen, past, strict=True)] == [True] * LAST
    grams = view.input_grams(past, range(LAST))
    for name, a in leg.current.a.items():
        is_designed = a.abs().amax(1) > 0
        torch.testing.assert_close(3 * a @ a.T, torch.diag(is_designed.float()), rtol=1e-4, atol=1e-4)
        assert float((3 * a @ grams[name] @ a.T).trace()) < (1 - PAST_ENERGY) * float(grams[name].trace())
        assert float(leg.current.b[name].abs().max()) == 0
    trained = stored_update(folder / f"block_{LAST}", RANK)
    assert all(torch.equal(trained.a[name], a) for name, a in leg.current.a.items())


def test_inputs_of_blocks_are_those_of_their_targets(workspace: Path) -> None:
    """What layers read in two blocks is the mean over the tokens of both; the adapters below it change it."""
    _model, view, folder = view_of(workspace, "inf_lora", LAST)
    past = [stored_update(folder / "block_0", RANK)]
    first, second, both = (view.input_grams(past, blocks) for blocks in ([0], [1], [0, 1]))
    for name, gram in both.items():
        share = float((gram - second[name]).norm() / (first[name] - second[name]).norm())
        torch.testing.assert_close(gram, second[name] + share * (first[name] - second[name]), rtol=1e-3, atol=1e-4)
        assert 0.1 < share < 0.9
    assert any(not torch.allclose(gram, first[name]) for name, gram in view.input_grams([], [0]).items())


def test_o_lora_keeps_the_past_whole_and_starts_anew(workspace: Path) -> None:
    leg, view, folder = leg_of(workspace, "o_lora", LAST)
    past = [stored_update(folder / f"block_{block}", RANK) for block in range(LAST)]
    assert [are_equal(kept, stored) for kept, stored in zip(leg.frozen, past, strict=True)] == [True] * LAST
    assert are_equal(leg.current, view.fresh_state())
    assert all(float(b.abs().max()) == 0 for b in leg.current.b.values())


def test_magnitudes_do_not_decay(workspace: Path, tmp_path: Path) -> None:
    """At a rate of next to nothing and a decay that outweighs it they stay at 1, and B shrinks."""
    quick = QUICK | {"training": QUICK["training"] | {"learning_rate": 1e-12, "weight_decay": 1e11}}
    chosen = config(**quick | VARIANTS["sd_lora"])
    materials = load_materials(workspace, chosen)
    folder = run_of(workspace, "sd_lora") / "adapters"
    base = read_base(materials, workspace / "bases")
    model = run_update(materials, base, build_method(chosen), folder, 1, tmp_path / "checkpoint.safetensors").model
    assert isinstance(model, PeftModel)
    magnitudes = [values for _, values in magnitude_parameters(model)]
    assert magnitudes and all(torch.allclose(one, torch.ones_like(one)) for one in magnitudes)
    ended, before = read_low_rank(model), stored_update(folder / "block_0", RANK)
    assert all(float(ended.b[name].norm()) < 0.99 * float(before.b[name].norm()) for name in before.b)


def test_lsat_is_the_mean_of_its_legs(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _model, view, folder = view_of(workspace, "lsat", 1)
    method = build_method(config(**QUICK | VARIANTS["lsat"]))
    long_term, short_term = method.legs(view)
    assert len(long_term.targets) > len(short_term.targets)
    assert set(short_term.targets) < set(long_term.targets)
    ends: list[LowRank] = []

    def noting(model: PeftModel) -> LowRank:
        ends.append(read_low_rank(model))
        return ends[-1]

    monkeypatch.setattr("peso.training.update.read_low_rank", noting)
    materials, base = base_of(workspace, "lsat")
    run_update(materials, base, method, folder, 1, tmp_path / "checkpoint.safetensors")
    assert len(ends) == 2
    stored = stored_update(folder / "block_1", 2 * RANK)
    for name in stored.a:
        wanted = sum(end.b[name] @ end.a[name] for end in ends) / 2
        torch.testing.assert_close(stored.b[name] @ stored.a[name], wanted)
        assert all(float(end.b[name].abs().max()) > 0 for end in ends)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_holds_both_parts(workspace: Path, metric: str) -> None:
    """Without an anchor both go further; another metric goes elsewhere."""
    folders = [run_of(workspace, name) / "adapters" for name in ("single", f"peso {metric}", "peso")]
    start = load_file(folders[0] / "block_0" / "adapter_model.safetensors")
    free, held, softmax = (load_file(folder / "block_1" / "adapter_model.safetensors") for folder in folders)
    for part in ("lora_", "token_adapter"):
        names = [name for name in start if part in name]
        assert names and any(not torch.equal(held[name], free[name]) for name in names)
        is_same = all(torch.equal(held[name], softmax[name]) for name in names)
        assert not is_same or (metric, part) == ("counts", "lora_")
        ways = [sum(float((end[name] - start[name]).square().sum()) for name in names) for end in (held, free)]
        assert ways[0] < ways[1]
