"""Versions of an adapter without a run around them: nothing is measured."""

from pathlib import Path

from peso.lm.live_bytes import LiveBytes
from peso.methods.registry import build_method
from peso.training.base_training import prepare_base
from peso.training.materials import Materials
from peso.training.processes import written_by_first
from peso.training.update import run_update, write_update


def make_versions(workspace: Path, materials: Materials, num_blocks: int) -> tuple[Path, list[int]]:
    """Trains the base if there is none, and updates it.

    Args:
        workspace: with data.
        materials: of the workspace.
        num_blocks: how many versions, that of block 0 included.

    Returns:
        The folder of `block_0`, `block_1` and so on, and for each the bytes of tensors alive at its worst moment.
    """
    base, method = prepare_base(materials, workspace / "bases"), build_method(materials.config)
    adapters, peaks = workspace / "versions" / materials.run_id, []
    adapters.mkdir(parents=True)
    for block in range(num_blocks):
        with LiveBytes() as live:
            trained = run_update(materials, base, method, adapters, block, adapters / "checkpoint.safetensors")
        peaks.append(live.peak)
        with written_by_first(adapters / f"block_{block}") as temporary:
            assert temporary is not None
            write_update(temporary, trained, materials)
        (adapters / "checkpoint.safetensors").unlink(missing_ok=True)
    return adapters, peaks
