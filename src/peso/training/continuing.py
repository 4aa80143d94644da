"""The next day: newer data of the same log, in which what a run has learned is block 0 and its model the base."""

from pathlib import Path
from typing import Any

import numpy as np

from peso.data.dataset import Dataset
from peso.data.merged_blocks import merge_first_blocks, save_merged
from peso.data.storage import load_dataset
from peso.errors import DataError, WorkspaceError
from peso.files import atomic_directory
from peso.semantic_ids.encoding import refuse_under_models
from peso.semantic_ids.extending import extend_codes
from peso.training.carrying import carry_over, find_version, origins


def continue_run(older: Path, newer: Path, run_id: str | None = None) -> dict[str, Any]:
    """Lets a newer workspace go on where a run of an older one stands.

    The blocks that the run has learned become the newer workspace's block 0; items keep their codes, new ones get the
    nearest free codes of the same codebook; and the run's last version is the base of the run's configuration. A call
    that was interrupted may be repeated.

    Args:
        older: workspace of the run, its items encoded by peso.
        newer: workspace with a later import of the same log, cut like the older one and with at least one more block.
        run_id: a finished run of the older workspace; the one finished last by default.

    Returns:
        JSON values: `run_id`, `block` (the version's), `num_blocks` (of the newer data now), `num_new_items`, `base`
        (its folder) and `config` (the run's file).

    Raises:
        DataError: the newer data lack a block, or hold events that the run has learned in a later block.
        WorkspaceError: codes were imported, the newer workspace has models already, the run keeps more than one
            adapter, or something is missing or damaged.
        ConfigError: the encoder's model is gone or has changed.
    """
    if older.resolve() == newer.resolve():
        raise WorkspaceError(f"{newer} cannot go on from itself; import the newer log into a workspace of its own.")
    before, after = load_dataset(older / "data"), load_dataset(newer / "data")
    last = before.num_blocks - 1
    version = find_version(older, run_id, last)
    is_begun = origins(newer).get("extends") == version.materials.semantic_ids.fingerprint
    if not is_begun:
        refuse_under_models(newer)
        after = merge_first_blocks(after, last)
        _refuse_leaks(before, after)
    extended = extend_codes(older, newer, after)
    if not is_begun:
        with atomic_directory(newer / "data") as temporary:
            save_merged(newer / "data", after, temporary)
            extended.save(temporary / "semantic_ids", after)
    if len(extended.added.ids):
        extended.added.save(newer, extended.semantic_ids)
    return {
        "run_id": version.run.name,
        "block": last,
        "num_blocks": after.num_blocks,
        "num_new_items": extended.num_new,
        "base": str(carry_over(version, newer)),
        "config": str(version.run / "config.toml"),
    }


def _refuse_leaks(before: Dataset, merged: Dataset) -> None:
    """What a model has learned must not come up again as the future.

    Raises:
        DataError: a user has fewer events in the new block 0 than there were in all of the older data.
    """
    users = {user: number for number, user in enumerate(merged.user_ids)}
    learned = np.bincount(before.event_user, minlength=before.num_users)
    first = np.bincount(merged.event_user[merged.event_block == 0], minlength=merged.num_users)
    for user, count in zip(before.user_ids, learned.tolist(), strict=True):
        number = users.get(user)
        if number is not None and first[number] < count:
            raise DataError(
                f"user {user!r} has {count} events in the data that the run has learned, and {first[number]} in the "
                "same blocks of the newer data; import the newer log with --like OLD and the same rules of cleaning."
            )
