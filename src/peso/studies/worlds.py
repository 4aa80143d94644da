"""The simulated worlds of a study, each a workspace of its own inside the study's."""

from pathlib import Path

from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import save_dataset
from peso.files import atomic_directory, hash_of_json
from peso.semantic_ids.catalogue import build_semantic_ids


def prepare_world(workspace: Path, name: str, settings: SimulationSettings) -> Path:
    """Finds or makes a world; other settings make another world beside it.

    Args:
        workspace: the study's.
        name: of the world, short.
        settings: what kind of world.

    Returns:
        The world's workspace, `worlds/<name>-<hash of its settings>`.

    Raises:
        DataError: there are too few items for what the users take.
    """
    folder = workspace / "worlds" / f"{name.replace(' ', '-')}-{hash_of_json(settings.model_dump(mode='json'))[:8]}"
    data = folder / "data"
    if not data.exists():
        world = simulate(settings)
        semantic_ids = build_semantic_ids(world.dataset, world.source_codes, world.level_sizes)
        with atomic_directory(data) as temporary:
            save_dataset(world.dataset, temporary)
            semantic_ids.save(temporary / "semantic_ids", world.dataset.item_ids)
            world.save_truth(temporary / "truth")
    return folder
