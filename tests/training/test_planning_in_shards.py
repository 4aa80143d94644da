"""A plan for several processes against what each of two really holds, with the backbone whole and in shards."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from language_models import write_language_model
from peso.config import RunConfig, make_config
from peso.errors import ConfigError
from peso.lm.live_bytes import LiveBytes
from peso.lm.sharding import frozen_bytes_here
from peso.methods.registry import build_method
from peso.training.base import load_base
from peso.training.base_training import prepare_base
from peso.training.materials import load_materials
from peso.training.planning import plan_memory, plan_run
from peso.training.update import run_update
from processes import run_two
from streams import config, fill
from versions import make_versions

DEEP = {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 1024}
GPT2_DEEP = {"n_embd": 256, "n_layer": 4}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "whole": ("llama", "none", {}),
    "untied, checkpointing": ("llama", "fsdp", {"gradient_checkpointing": True}),
    "tied, whole vocabulary": ("smollm", "fsdp", {"normaliser": "vocabulary"}),
    "learned positions": ("gpt2", "fsdp", {}),
    "few tokens in a pass": ("llama", "fsdp", {"targets_per_row": 1, "passes_per_step": 16}),
}


def config_of(source: Path, sharding: str, **training: Any) -> RunConfig:
    return config(
        backbone={"source": str(source)},
        adapter={"r": 4, "lora_alpha": 8, "target_modules": ["all-linear"]},
        training={"epochs": 1, "base_epochs": 1, "batch_targets": 16, "rate_factors": [1.0], "sharding": sharding}
        | training,
        template="instruct",
        evaluation={"next_block": "off"},
    )  # fmt: skip


PATIENCE = 20
"""Waits of 2 ms in which a thread of gloo may let go of what a finished gather used: how late it does is chance."""
WORTH_WAITING = 1.01
"""A smaller rise is no gather."""
BLOCK = 1


class LiveBytesInShards(LiveBytes):
    """Also what gathers bring: storages that grow and shrink where no operation is seen."""

    def __init__(self, model: nn.Module) -> None:
        outputs = [
            output
            for module in model.modules()
            if isinstance(module, FSDPModule) and (group := module._get_fsdp_state()._fsdp_param_group) is not None
            for parameter in group.fsdp_params
            for output in parameter.all_gather_outputs
        ]
        own = [one.to_local() if isinstance(one, DTensor) else one for one in (*model.parameters(), *model.buffers())]
        super().__init__([*own, *outputs])  # counted by the caller and below; views of them are no more
        self.worst = 0
        self._gathered = [output.untyped_storage() for output in outputs]

    def __torch_dispatch__(self, *arguments: Any, **options: Any) -> Any:
        result = super().__torch_dispatch__(*arguments, **options)
        tries = 0
        while (alive := self.now + sum(storage.nbytes() for storage in self._gathered)) > self.worst:
            if tries == PATIENCE or alive < WORTH_WAITING * self.worst:
                self.worst = alive
            else:
                time.sleep(0.002)
                tries += 1
        return result


def _measure(process: int, workspace: Path, adapters: Path, settings: dict[str, Any], folder: Path) -> None:
    """Writes what one process holds at most in an update, from the moment on when its backbone is loaded."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=process, world_size=2)
    chosen = make_config(None, settings)
    materials = load_materials(workspace, chosen)
    base = prepare_base(materials, workspace / "bases")
    with ExitStack() as watch, pytest.MonkeyPatch.context() as patch:
        watching: list[LiveBytesInShards] = []
        held: list[int] = []

        def load_and_watch(*arguments: Any) -> Any:
            adapted, reader = load_base(*arguments)
            trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
            held.append(frozen_bytes_here(adapted) + sum(one.nbytes for one in (*trained, *adapted.buffers())))
            watching.append(watch.enter_context(LiveBytesInShards(adapted)))
            return adapted, reader

        patch.setattr("peso.training.update.load_base", load_and_watch)
        run_update(materials, base, build_method(chosen), adapters, BLOCK, folder / f"{process}.safetensors")
    dist.destroy_process_group()
    (folder / f"{process}.json").write_text(json.dumps({"held": held[-1], "measured": held[-1] + watching[0].worst}))


@pytest.mark.parametrize("case", CASES)
def test_memory_is_that_of_two_real_processes(tmp_path: Path, case: str) -> None:
    """From two and three layers to four: within 10 % of what the process holds that holds more."""
    family, sharding, training = CASES[case]
    source = write_language_model(tmp_path / "lm", family, shape=GPT2_DEEP if family == "gpt2" else DEEP)
    workspace = fill(tmp_path / "world", num_users=10, num_blocks=2)
    adapters, _ = make_versions(workspace, load_materials(workspace, config_of(source, "none", **training)), BLOCK)
    chosen = config_of(source, sharding, **training)
    run_two(_measure, workspace, adapters, chosen.model_dump(mode="json"), tmp_path)
    update = plan_memory(load_materials(workspace, chosen), on_gpu=False, num_processes=2)[-1]
    facts = [json.loads((tmp_path / f"{process}.json").read_text()) for process in range(2)]
    assert update.weights_bytes == pytest.approx(max(fact["held"] for fact in facts), rel=0.02)
    assert update.total_bytes == pytest.approx(max(fact["measured"] for fact in facts), rel=0.1)


def test_a_share_needs_somebody_to_share_with(tmp_path: Path) -> None:
    source = write_language_model(tmp_path / "lm", "llama")
    chosen = config_of(source, "fsdp")
    with pytest.raises(ConfigError, match="peso plan: --processes"):
        plan_run(load_materials(fill(tmp_path / "world", num_users=20), chosen), None, 1.0)
