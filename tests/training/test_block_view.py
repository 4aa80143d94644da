"""What methods are shown of a block: squared gradients, moments, counts and inputs, each against a plain loop."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from peso.data.examples import targets_of_block
from peso.lm.adapters import lora_parameters, token_row_parameters
from peso.lm.backbone import body_of
from peso.lm.low_rank import adapted_layers
from peso.lm.quick_stack import layer_by_layer
from peso.training.base import adapter_parts, load_base, read_base, training_rows
from peso.training.block_view import RunView
from peso.training.materials import Materials, Reader, load_materials
from peso.training.stream import run_stream
from streams import QUICK, config, fill

LAST = 2


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("views"))


def view_of(workspace: Path, method: str, **overrides: Any) -> tuple[Materials, PeftModel, Reader, RunView]:
    """Before block 2, at a base that has trained: A and B both act."""
    materials = load_materials(workspace, config(**QUICK | {"method": method} | overrides))
    run = run_stream(workspace, materials.config, resume=True)
    model, reader = load_base(materials, read_base(materials, workspace / "bases"))
    view = RunView(materials, reader, model, run / "adapters", LAST)
    view.begin(adapter_parts(model))
    return materials, model, reader, view


def test_fisher_is_the_mean_squared_gradient(workspace: Path) -> None:
    materials, model, reader, view = view_of(workspace, "ewc")
    fisher = view.squared_gradients(1)["lora"]
    rows = training_rows(materials, targets_of_block(materials.dataset, 1, "train"))
    parameters = dict(lora_parameters(model))
    name = view.group_names()[0][0]
    squares = []
    for row in range(len(rows)):
        batch = reader.builder.batch(rows.take(torch.tensor([row]).numpy()))
        loss = reader.likelihood.negative_log_likelihood(reader.model, batch).sum()
        (gradient,) = torch.autograd.grad(loss, [parameters[name]])
        squares.append(gradient.flatten().square())
    torch.testing.assert_close(fisher[0][0], torch.stack(squares).mean(0), rtol=1e-3, atol=1e-9)


def losses_of_rows(materials: Materials, reader: Reader) -> Iterator[Tensor]:
    """The block's training rows, one after the other."""
    rows = training_rows(materials, targets_of_block(materials.dataset, LAST, "train"))
    for row in range(len(rows)):
        batch = reader.builder.batch(rows.take(torch.tensor([row]).numpy()))
        yield reader.likelihood.negative_log_likelihood(reader.model, batch).sum()


def test_fisher_reaches_the_token_rows(workspace: Path) -> None:
    materials, model, reader, view = view_of(workspace, "peso")
    measured = view.squared_gradients(LAST, ("lora", "token_rows"))
    assert measured is view.squared_gradients(LAST, ("lora", "token_rows")), "candidates share what was measured"
    tables = token_row_parameters(model)
    assert [name for names in view.group_names("token_rows") for name in names] == sorted(name for name, _ in tables)
    squares = {name: torch.zeros(rows.numel()) for name, rows in tables}
    gradients = [torch.autograd.grad(loss, [rows for _, rows in tables]) for loss in losses_of_rows(materials, reader)]
    for of_row in gradients:
        for (name, _), gradient in zip(tables, of_row, strict=True):
            squares[name] += gradient.flatten().square() / len(gradients)
    for names, groups in zip(view.group_names("token_rows"), measured["token_rows"], strict=True):
        for name, ours in zip(names, groups, strict=True):
            torch.testing.assert_close(ours, squares[name], rtol=1e-3, atol=1e-9)
    alone = view.squared_gradients(LAST)["lora"]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(measured["lora"], alone, strict=True))
    assert not any(part.gradient.any() for part in view._parts.values())


def test_layer_moments_are_those_of_a_plain_loop(workspace: Path) -> None:
    """Token by token, the gradient at a layer's end read off a number that is added there."""
    materials, model, reader, view = view_of(workspace, "peso")
    moments = view.layer_moments(LAST)
    layers = adapted_layers(model)
    assert moments.keys() == layers.keys()
    for name in ("layers.0.self_attn.v_proj", "layers.0.mlp.down_proj"):
        expected, seen = [torch.zeros_like(one) for one in moments[name]], 0
        kept: list[tuple[Tensor, Tensor]] = []

        def shifted(_module: Any, inputs: tuple[Tensor, ...], output: Tensor, kept: Any = kept) -> Tensor:
            kept.append((inputs[0].detach(), torch.zeros_like(output, requires_grad=True)))
            return output + kept[-1][1]

        handle = layers[name].register_forward_hook(shifted)
        with layer_by_layer(reader.model):
            for loss in losses_of_rows(materials, reader):
                inputs, shift = kept.pop()
                (gradient,) = torch.autograd.grad(loss, [shift])
                for x, g in zip(inputs.flatten(0, -2), gradient.flatten(0, -2), strict=True):
                    expected[0] += torch.outer(x, x)
                    expected[1] += torch.outer(g, g)
                    seen += 1
        handle.remove()
        for ours, theirs in zip(moments[name], expected, strict=True):
            torch.testing.assert_close(ours, theirs / seen, rtol=1e-3, atol=1e-6 * float(theirs.max()) / seen)
    assert not any(part.gradient.any() for part in view._parts.values())
    assert not any(layer._forward_hooks for layer in layers.values())


@pytest.mark.parametrize("trained", ["codes", "all"])
def test_row_counts_are_those_of_the_block_s_targets(workspace: Path, trained: str) -> None:
    materials, model, reader, view = view_of(
        workspace, "peso", adapter={"r": 2, "lora_alpha": 4, "token_rows": trained}
    )
    targets = targets_of_block(materials.dataset, LAST, "train")
    seen = Counter(
        int(token)
        for item in materials.dataset.event_item[targets]
        for token in reader.builder.vocabulary.item_token_ids[item]
    )
    tokens = reader.builder.vocabulary.all_token_ids if trained == "codes" else range(len(token_rows_of(model)))
    for counts in view.row_counts(LAST):
        for of_table in counts:
            assert of_table.tolist() == [seen[token] for token in tokens]


def token_rows_of(model: PeftModel) -> Tensor:
    return token_row_parameters(model)[0][1]


def test_watched_inputs_are_those_of_real_tokens_in_training(workspace: Path) -> None:
    materials, _model, reader, view = view_of(workspace, "output_kl")
    body: Any = body_of(reader.model)
    was_written_out = "forward" in body.__dict__
    assert was_written_out
    inputs = view.watch_inputs()
    rows = training_rows(materials, targets_of_block(materials.dataset, LAST, "train"))
    batch = reader.builder.batch(rows.take(torch.arange(6).numpy()))
    is_real = batch.input_ids != reader.builder.vocabulary.pad_token_id
    assert not is_real.all()
    reader.likelihood.negative_log_likelihood(reader.model.eval(), batch)
    assert not any(inputs.values())
    reader.likelihood.negative_log_likelihood(reader.model.train(), batch)
    assert {len(kept) for kept in inputs.values()} == {1}
    assert {len(kept[0]) for kept in inputs.values()} == {int(is_real.sum())}
    embedded = body.layers[0].input_layernorm(body.embed_tokens(batch.input_ids))[is_real]
    torch.testing.assert_close(inputs["layers.0.self_attn.q_proj"][0], embedded)
    view.close()
    assert "forward" in body.__dict__
    reader.likelihood.negative_log_likelihood(reader.model, batch)
    assert {len(kept) for kept in inputs.values()} == {1}
