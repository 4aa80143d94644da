"""The benchmark of a GPU in miniature on the CPU: its parts run, and its comparison finds a difference."""

import copy

import pytest
import torch

from benchmarks import gpu
from benchmarks.agreement import agreement

TINY = {**gpu.SMALL, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> gpu.Engine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PESO_SHARED_DATA", str(tmp_path_factory.mktemp("none")))
        return gpu.build_engine(TINY, torch.float32)


def test_copies_agree_and_a_changed_one_does_not(engine: gpu.Engine) -> None:
    model = engine.reader.model
    other = copy.deepcopy(model)
    same = agreement(engine.materials, engine.reader, model, other)
    assert set(same) == {
        "loss_difference", "gradient_difference", "equal_lists_plain", "equal_lists_without_seen",
        "equal_lists_with_memory",
    }  # fmt: skip
    assert all(target.met for target in same.values()), same
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    changed = agreement(engine.materials, engine.reader, model, other)
    assert not any(target.met for target in changed.values()), changed


def test_training_and_decoding_are_measured(engine: gpu.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TARGETS_PER_STEP", 64)
    trained = gpu.train(engine, steps=2)
    assert trained["tokens_per_second"] > trained["targets_per_second"] > 0
    decoded = gpu.decode(engine, users=16, num_batches=2)
    assert decoded["users"] == 32
    assert decoded["users_per_second"] > 0
    assert abs(decoded["share_of_time_in_constraint"]) < 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand, so the benchmark would run")
def test_without_a_gpu_it_says_so() -> None:
    outcome = gpu.measure(quick=True)
    assert outcome.details["was_run"] is False
    assert "no CUDA device" in outcome.details["reason"]
