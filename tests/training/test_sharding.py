"""A frozen backbone in shards over two processes: half the bytes in each, and the numbers of one that has it whole."""

from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from commands import begin_two
from language_models import write_language_model
from peso.config import AdapterConfig, RunConfig, dump_config, make_config
from peso.decoding.branches import StockBody
from peso.decoding.quick_body import quick_body
from peso.errors import ConfigError
from peso.lm.adapters import attach_adapter
from peso.lm.backbone import body_of, load_weights
from peso.lm.device import make_ready
from peso.lm.sharding import answering_others, frozen_bytes_here, is_sharded, shard_frozen
from peso.lm.token_rows import head_rows
from peso.training.materials import load_materials
from peso.training.processes import own_passes
from peso.training.recommending import recommend_for_user
from peso.training.stream import run_stream
from processes import run_two, wait_for
from runs import assert_same_numbers
from streams import config, fill

_CODES = range(5, 25)

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "untied, per level, a search for rates": ("llama", {"rate_factors": [0.5, 0.25, 1.0]}, {}),
    "tied, whole vocabulary, checkpointing, a measured metric": (
        "smollm", {"normaliser": "vocabulary", "gradient_checkpointing": True, "passes_per_step": 3},
        {"metric": "kronecker"},
    ),
}  # fmt: skip


def config_of(source: Path, sharding: str, proximal: dict[str, Any] | None = None, **training: Any) -> RunConfig:
    return config(
        method="peso",
        backbone={"source": str(source)},
        adapter={"r": 2, "lora_alpha": 4, "target_modules": ["all-linear"]},
        training={"sharding": sharding} | training,
        decoding={"beam_width": 10, "batch_tokens": 400},
        evaluation={"next_block": "ranks"},
        proximal=proximal or {},
    )


def begin_run(workspace: Path, chosen: RunConfig, *flags: str) -> list[ForkServerProcess]:
    file = workspace.parent / "config.toml"
    file.write_text(dump_config(chosen))
    return begin_two("run", "--workspace", workspace, "--config", file, *flags, folder=workspace.parent)


def ends_of(processes: list[ForkServerProcess]) -> list[int | None]:
    """Exit codes, once all have ended; None of one that would not."""
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_a_shard_each_end_with_the_numbers_of_one(tmp_path: Path, case: str) -> None:
    family, training, proximal = CASES[case]
    source = write_language_model(tmp_path / "lm", family)
    alone = run_stream(fill(tmp_path / "alone" / "world"), config_of(source, "none", proximal, **training))
    workspace = fill(tmp_path / "shared" / "world")
    processes = begin_run(workspace, config_of(source, "fsdp", proximal, **training))
    assert ends_of(processes) == [0, 0]
    (folder,) = (workspace / "runs").glob("peso-*")
    said = [(workspace.parent / f"{process}.stdout").read_text().splitlines() for process in range(2)]
    assert (said[0][-1], said[1]) == (str(folder / "result.json"), [])
    assert folder.name != alone.name, "what is not the default is named"
    assert_same_numbers(folder, alone)
    assert_same_adapters(folder, alone)
    user = load_materials(workspace, config_of(source, "none")).dataset.user_ids[0]
    lists = [recommend_for_user(one, user, 5)["recommendations"] for one in (workspace, alone.parent.parent)]
    assert [entry["item_id"] for entry in lists[0]] == [entry["item_id"] for entry in lists[1]], "read by one process"


def test_a_sharded_run_resumes_after_one_process_is_killed(tmp_path: Path) -> None:
    source = write_language_model(tmp_path / "lm", "llama")
    alone = run_stream(fill(tmp_path / "alone" / "world"), config_of(source, "none"))
    chosen, workspace = config_of(source, "fsdp"), fill(tmp_path / "shared" / "world")
    processes = begin_run(workspace, chosen)
    wait_for(
        workspace,
        "runs/*/checkpoint_block_1*.safetensors",
        lambda: all(process.is_alive() for process in processes),
    )
    processes[1].kill()
    assert all(ends_of(processes)), "the other cannot go on alone"
    assert not list(workspace.glob("runs/*/result.json"))
    assert ends_of(begin_run(workspace, chosen, "--resume")) == [0, 0]
    (folder,) = (workspace / "runs").glob("peso-*")
    assert_same_numbers(folder, alone)
    assert_same_adapters(folder, alone)


def assert_same_adapters(folder: Path, alone: Path) -> None:
    files = sorted(path.relative_to(alone) for path in alone.glob("adapters/*/adapter_model.safetensors"))
    assert len(files) == 3
    for file in files:
        ours, theirs = load_file(folder / file), load_file(alone / file)
        assert ours.keys() == theirs.keys()
        for name, matrix in theirs.items():
            torch.testing.assert_close(ours[name], matrix, rtol=1e-3, atol=1e-4 * float(matrix.abs().max()), msg=name)


def _facts(folder: Path, sharded: bool, own_tokens: int) -> dict[str, Any]:
    """States, gradients and beams of a model, whole or in shards."""
    model = make_ready(load_weights(folder), awaits_shards=sharded)
    adapted = attach_adapter(model, AdapterConfig(r=4, lora_alpha=8, target_modules=("all-linear",)), _CODES, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    num_bytes = frozen_bytes_here(adapted)
    if sharded:
        shard_frozen(model)
    assert is_sharded(model) == sharded
    tokens = torch.arange(3, 3 + 2 * own_tokens).view(2, own_tokens) % 40
    body = body_of(model)
    with torch.inference_mode():
        before = body(input_ids=tokens, use_cache=False).last_hidden_state
    model.train()
    states = body(input_ids=tokens, use_cache=False).last_hidden_state
    (states @ head_rows(model).T).logsumexp(-1).sum().backward()
    gradients = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(gradients) > 10
    model.eval()
    lengths = torch.tensor([own_tokens, own_tokens - 1])
    reader = quick_body(model)
    assert not sharded or isinstance(reader, StockBody)
    with answering_others(model):
        for _ in range(own_tokens):  # the other process reads more, or fewer, and neither knows
            at_last, beams = reader.read(tokens, lengths)
        extended = beams.extend(torch.tensor([[6, 7], [8, 9]]), torch.zeros(2, 2, dtype=torch.int64))
    facts: dict[str, Any] = {"before": before, "states": states.detach(), "at_last": at_last, "extended": extended}
    return facts | gradients | {"bytes": (num_bytes, frozen_bytes_here(adapted))}


def _compare(process: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=process, world_size=2)
    own_tokens = 5 + 3 * process
    ours, theirs = (_facts(folder, sharded, own_tokens) for sharded in (True, False))
    whole, shard = ours.pop("bytes")
    assert theirs.pop("bytes") == (whole, whole)
    assert shard == pytest.approx(whole / 2, rel=0.01)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert isinstance(tensor, Tensor)
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5 * float(tensor.abs().max()), msg=name)
    dist.destroy_process_group()


@pytest.mark.parametrize("family", ["llama", "smollm", "gemma", "gpt2"])
def test_each_process_keeps_half_and_computes_the_same(tmp_path: Path, family: str) -> None:
    folder = write_language_model(tmp_path / "lm", family)
    run_two(_compare, folder)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
@pytest.mark.parametrize("family", ["llama", "smollm"])
def test_loaded_weights_stay_in_their_file_until_they_are_cut(tmp_path: Path, family: str) -> None:
    """A process that takes its share of a mapped file never holds the rest in memory of its own."""
    folder = write_language_model(tmp_path / "lm", family)
    model = make_ready(load_weights(folder), awaits_shards=True)
    attach_adapter(model, AdapterConfig(r=4, lora_alpha=8, target_modules=("all-linear",)), _CODES, seed=0)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    file = str((folder / "model.safetensors").resolve())
    mapped = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines if line[-1] == file]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    assert len(frozen) > 10
    for parameter in frozen:
        assert any(start <= parameter.data_ptr() < end for start, end in mapped)


def _compare_weights(process: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=process, world_size=2)
    model = make_ready(load_weights(folder), awaits_shards=True)
    names = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    is_tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert len(set(names.values())) == len(names) - is_tied
    attach_adapter(model, AdapterConfig(r=4, lora_alpha=8, target_modules=("all-linear",)), _CODES, seed=0)
    shard_frozen(model)
    stored, seen = load_file(folder / "model.safetensors"), set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            plain = name.replace(".base_layer", "").replace(".token_adapter", "")
            assert isinstance(parameter, DTensor), name
            assert torch.equal(parameter.full_tensor(), stored[plain]), name
            seen.add(plain)
    assert seen == stored.keys()
    dist.destroy_process_group()


@pytest.mark.parametrize("family", ["llama", "smollm"])
def test_shards_are_those_of_the_file_bit_for_bit(tmp_path: Path, family: str) -> None:
    """Untied and tied."""
    folder = write_language_model(tmp_path / "lm", family)
    run_two(_compare_weights, folder)


def _resident_bytes(folder: Path, results: Any) -> None:
    """In a process of its own, since memory that another test has freed would be used again."""
    before = psutil.Process().memory_info().rss
    model = make_ready(load_weights(folder), awaits_shards=True)
    attach_adapter(model, AdapterConfig(r=4, lora_alpha=8, target_modules=("all-linear",)), _CODES, seed=0)
    results.put(psutil.Process().memory_info().rss - before)


def test_what_awaits_shards_stays_in_its_file(tmp_path: Path) -> None:
    wide = {"hidden_size": 512, "num_hidden_layers": 6, "intermediate_size": 2048}
    folder = write_language_model(tmp_path / "lm", "llama", shape=wide)
    context = get_context("spawn")  # a process whose memory nothing but the test has touched
    results = context.Queue()
    process = context.Process(target=_resident_bytes, args=(folder, results))
    process.start()
    resident = results.get(timeout=120)
    process.join()
    assert resident < 0.6 * (folder / "model.safetensors").stat().st_size


def test_passes_in_step_are_as_many_as_the_longest_share() -> None:
    shares = [[1, 2], [3, 4, 5]]
    assert list(own_passes(shares, in_step=True)) == [(1, True), (2, True), (3, False)]
    assert list(own_passes(shares, in_step=False)) == [(1, True), (2, True)]
    assert list(own_passes([[], [7]], in_step=True)) == [(7, False)]


def test_shards_are_refused_where_there_is_nothing_to_share(tmp_path: Path) -> None:
    shards = {"training": {"sharding": "fsdp"}}
    with pytest.raises(ConfigError, match="the embedded backbone is small and trains itself"):
        make_config(None, shards)
    with pytest.raises(ConfigError, match='the method "full" trains all weights'):
        make_config(None, shards | {"method": "full", "backbone": {"source": "lm"}})
    chosen = make_config(None, shards | {"backbone": {"source": "lm"}})
    with pytest.raises(ConfigError, match="there is one; start several with torchrun"):
        run_stream(tmp_path, chosen)


def test_no_shards_go_unnamed_so_that_ids_stay() -> None:
    plain, named = make_config(None, {}), make_config(None, {"training": {"sharding": "none"}})
    assert plain.base_part() == named.base_part()
    assert "sharding" not in plain.model_dump(mode="json")["training"]
    chosen = make_config(None, {"training": {"sharding": "fsdp"}, "backbone": {"source": "lm"}})
    assert chosen.base_part()["training"]["sharding"] == "fsdp"
