"""The worlds of a study: simulated, or the workspace's data split or encoded anew; each a workspace inside its own."""

import shutil
from pathlib import Path

from peso.data.item_times import TIMES_FILE
from peso.data.simulate import SimulationSettings, simulate
from peso.data.storage import load_dataset, save_dataset
from peso.data.user_split import split_by_users
from peso.files import atomic_directory, hash_of_json
from peso.semantic_ids.catalogue import build_semantic_ids
from peso.semantic_ids.encoding import EncodingRequest, encode_workspace
from peso.studies.plan import Reencoded, UserSplit, World


def prepare_world(workspace: Path, name: str, settings: World) -> Path:
    """Finds or makes a world; other settings, or other data to split, make another world beside it.

    Args:
        workspace: the study's.
        name: of the world, short.
        settings: what kind of world.

    Returns:
        The world's workspace, `worlds/<name>-<hash of its settings>`.

    Raises:
        DataError: there are too few items for what simulated users take, too few users to split, or items that give an
            encoder nothing to learn from.
        ConfigError: an encoder or a quantizer needs what is not installed.
    """
    if isinstance(settings, SimulationSettings):
        folder = _folder(workspace, name, settings.model_dump(mode="json"))
        if not (folder / "data").exists():
            _simulate(settings, folder / "data")
        return folder
    folder = _folder(workspace, name, [settings.model_dump(mode="json"), load_dataset(workspace / "data").fingerprint])
    if not (folder / "data" / "semantic_ids").exists():
        if isinstance(settings, Reencoded):
            _encode(settings, workspace / "data", folder)
        else:
            _split(settings, workspace / "data", folder / "data")
    return folder


def _folder(workspace: Path, name: str, facts: object) -> Path:
    return workspace / "worlds" / f"{name.replace(' ', '-')}-{hash_of_json(facts)[:8]}"


def _simulate(settings: SimulationSettings, data: Path) -> None:
    world = simulate(settings)
    semantic_ids = build_semantic_ids(world.dataset, world.source_codes, world.level_sizes)
    with atomic_directory(data) as temporary:
        save_dataset(world.dataset, temporary)
        semantic_ids.save(temporary / "semantic_ids", world.dataset.item_ids)
        world.save_truth(temporary / "truth")


def _split(settings: UserSplit, natural: Path, data: Path) -> None:
    dataset = split_by_users(load_dataset(natural), settings.users_drawn_with_seed)
    with atomic_directory(data) as temporary:
        save_dataset(dataset, temporary)
        shutil.copytree(natural / "semantic_ids", temporary / "semantic_ids")
        if (natural / TIMES_FILE).exists():
            shutil.copyfile(natural / TIMES_FILE, temporary / TIMES_FILE)


def _encode(settings: Reencoded, natural: Path, world: Path) -> None:
    if not (world / "data").exists():
        with atomic_directory(world / "data") as temporary:
            shutil.copytree(natural, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns("semantic_ids"))
    encode_workspace(world, EncodingRequest(settings.encoder, settings.quantizer, settings.level_sizes, settings.seed))
