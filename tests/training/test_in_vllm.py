"""An export scores in vLLM as its version does here.

vLLM brings its own releases of everything, so it lives in another environment, whose Python the variable names.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import vllm_scores
from language_models import write_language_model
from peso.config import make_config
from peso.training.base import load_state, read_base
from peso.training.exporting import export_version, serving_command
from peso.training.materials import load_materials
from peso.training.stream import run_stream
from streams import config
from worlds import fill_workspace, tiny_dataset

PYTHON = os.environ.get("PESO_VLLM_PYTHON")
pytestmark = pytest.mark.skipif(PYTHON is None, reason="PESO_VLLM_PYTHON does not name a Python that has vLLM")

HISTORIES = ([3], [3, 5], [8, 1, 4], [2, 7, 7, 9, 0, 5])


@pytest.mark.parametrize("family", ["llama", "smollm"])
@pytest.mark.parametrize("method", ["peso", "sum_lora"])
def test_log_probabilities_are_ours(family: str, method: str, tmp_path: Path) -> None:
    fill_workspace(tmp_path, tiny_dataset())
    source = write_language_model(tmp_path / "model", family, shape={"hidden_size": 128, "intermediate_size": 160})
    run = run_stream(
        tmp_path,
        config(
            backbone={"source": str(source)}, training={"epochs": 1, "learning_rate": 1e-2}, max_history=6,
            evaluation={"next_block": "off"}, method=method,
            adapter={"r": 4, "lora_alpha": 8, "target_modules": ("all-linear",)},
        ),
    )  # fmt: skip
    materials = load_materials(tmp_path, make_config(run / "config.toml"))
    version = run / "adapters" / "block_2"
    model, reader = load_state(materials, read_base(materials, tmp_path / "bases"), version)
    prompts = [reader.builder.prompt(np.array(history)).tolist() for history in HISTORIES]
    with torch.no_grad():
        logits = [model.eval()(input_ids=torch.tensor([tokens])).logits[0, -1] for tokens in prompts]
    folders = export_version(tmp_path, tmp_path / "out", "vllm")
    words = serving_command(folders).split()
    task, result = tmp_path / "task.json", tmp_path / "scores.json"
    rank = int(words[words.index("--max-lora-rank") + 1])
    task.write_text(json.dumps({**folders, "rank": rank, "prompts": prompts}))
    subprocess.run([str(PYTHON), vllm_scores.__file__, str(task), str(result)], check=True)
    for theirs, ours in zip(json.loads(result.read_text()), logits, strict=True):
        assert len(theirs) == len(ours)
        found = torch.tensor([theirs[str(token)] for token in range(len(ours))])
        torch.testing.assert_close(found, ours.float().log_softmax(0), rtol=1e-4, atol=1e-4)
