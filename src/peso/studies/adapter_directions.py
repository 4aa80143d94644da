"""The adapter of a run along the eigen-directions of Proposition 1, from the gradients of single targets."""

from pathlib import Path

import torch
from torch import Tensor

from peso.config import make_config
from peso.data.examples import targets_of_block
from peso.experiments.results import RunRecord
from peso.lm.rows import one_target_per_row
from peso.methods.metric import Metric, softmax_metric
from peso.methods.theory import Eigenpairs, eigenpairs_of_gradients
from peso.seeding import derive_seed
from peso.training.base import LORA, adapter_parts, load_base, read_base
from peso.training.materials import Materials, load_materials

NUM_EXAMPLES = 512
"""Targets whose gradients span the directions, at most; time and memory grow with it."""


def adapter_after(workspace: Path, run: RunRecord, block: int) -> Tensor:
    """A and B after a block as one vector, float64 [P], in the order of `FlatParameters`.

    Args:
        workspace: where the run and its base lie.
        run: a finished run of a method with one adapter.
        block: 0 is v_0.
    """
    materials = _materials(workspace, run)
    folder = run.folder / "adapters" / f"block_{block}"
    model, _ = load_base(materials, read_base(materials, workspace / "bases"), folder)
    return adapter_parts(model)[LORA].snapshot().double()


def directions_after(workspace: Path, run: RunRecord, block: int) -> tuple[Eigenpairs, Metric]:
    """What the next block's training targets say about directions from an adapter, and the metric they are measured in.

    Sigma is the second moment of the gradients of -log p(item), divided by the levels M: near its minimum, the
    curvature of the mean over codes that training goes down (the empirical Fisher matrix). H is the softmax's, times
    each group's size, so that lambda is the strength of the form "normalised".

    Args:
        workspace: where the run and its base lie.
        run: a finished run of a method with one adapter.
        block: whose adapter is the anchor; the targets are those of block + 1.

    Returns:
        The directions with rho > 0, and H.
    """
    materials = _materials(workspace, run)
    folder = run.folder / "adapters" / f"block_{block}"
    model, reader = load_base(materials, read_base(materials, workspace / "bases"), folder)
    lora = adapter_parts(model)[LORA]
    targets = targets_of_block(materials.dataset, block + 1, "train")
    generator = torch.Generator().manual_seed(derive_seed(materials.config.seed, "directions", block))
    sample = torch.randperm(len(targets), generator=generator)[:NUM_EXAMPLES].sort().values.numpy()
    rows = one_target_per_row(materials.dataset, targets[sample], materials.config.max_history)
    gradients = torch.empty(len(rows), lora.data.numel(), dtype=torch.float64)
    reader.model.eval()
    for number in range(len(rows)):
        lora.gradient.zero_()
        batch = reader.builder.batch(rows.take(torch.tensor([number]).numpy()))
        reader.likelihood.negative_log_likelihood(reader.model, batch).sum().backward()
        gradients[number] = lora.gradient
    gradients /= reader.builder.vocabulary.num_levels**0.5
    metric = softmax_metric(lora.groups(lora.snapshot()), times_size=True)
    return eigenpairs_of_gradients(gradients, metric), metric


def _materials(workspace: Path, run: RunRecord) -> Materials:
    return load_materials(workspace, make_config(run.folder / "config.toml"))
