"""Example users: what they took, and what each version of a run recommended."""

from dataclasses import dataclass

import polars as pl

from peso.data.dataset import Dataset
from peso.evaluation.groups import USER_GROUPS
from peso.experiments.results import RunRecord
from peso.semantic_ids.catalogue import SemanticIds

LAST_ITEMS = 8


@dataclass(frozen=True)
class Version:
    """What one version of the model did for a user.

    Attributes:
        block: the version.
        group: the user's group in that block.
        history: names of the last items before the target, oldest first.
        target: name of the item that the user took.
        listed: names of the recommended items, best first.
        hit_position: the target's place in the list; None if absent.
    """

    block: int
    group: str
    history: list[str]
    target: str
    listed: list[str]
    hit_position: int | None


@dataclass(frozen=True)
class ExampleUser:
    """A user and what each version recommended.

    Attributes:
        user_id: as in the data.
        versions: one per block in which the user is tested.
    """

    user_id: str
    versions: list[Version]


def example_users(
    record: RunRecord, dataset: Dataset, semantic_ids: SemanticIds, list_length: int
) -> list[ExampleUser]:
    """One user of each group in the last block, and one whom the last version served well.

    The first three are the first of their group by user id, so nobody picks flattering ones; the fourth is labelled by
    its hit.
    """
    tests = record.targets.filter(pl.col("protocol") == "in_block")
    last = tests.filter(pl.col("block") == pl.col("block").max()).sort("user_id")
    chosen: list[str] = []
    for group in USER_GROUPS:
        chosen += last.filter(pl.col("group") == group)["user_id"].head(1).to_list()
    others = last.filter(~pl.col("user_id").is_in(chosen)).sort("rank", "user_id", nulls_last=True)
    chosen += others["user_id"].head(1).to_list()
    item_number = {item: number for number, item in enumerate(dataset.item_ids)}

    def name(item: int) -> str:
        return dataset.titles[item] or f"{dataset.item_ids[item]} {semantic_ids.text(item)}"

    users = []
    for user in chosen:
        versions = []
        for row in tests.filter(pl.col("user_id") == user).sort("block").iter_rows(named=True):
            lists = record.recommendations.filter(
                (pl.col("user_id") == user) & (pl.col("model_block") == row["model_block"])
            ).sort("position")
            start = max(int(dataset.user_offsets[dataset.user_number(user)]), row["event"] - LAST_ITEMS)
            versions.append(
                Version(
                    row["block"],
                    row["group"],
                    [name(item) for item in dataset.event_item[start : row["event"]].tolist()],
                    name(item_number[row["item_id"]]),
                    [name(item_number[item]) for item in lists["item_id"].head(list_length)],
                    row["rank"],
                )
            )
        users.append(ExampleUser(user, versions))
    return users
