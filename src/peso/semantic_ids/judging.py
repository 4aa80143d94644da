"""Everything that a report on a workspace's codes shows, measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peso.data.dataset import Dataset, IntArray
from peso.data.storage import load_dataset, read_facts
from peso.errors import DataError
from peso.semantic_ids.catalogue import SemanticIds, load_semantic_ids
from peso.semantic_ids.contents import read_workspace_items
from peso.semantic_ids.encoders.base import ItemContents
from peso.semantic_ids.encoders.batches import encode_in_batches
from peso.semantic_ids.encoders.registry import EncoderRequest, build_encoder
from peso.semantic_ids.encoding import RECORD, VECTORS_FOLDER
from peso.semantic_ids.frozen import Vectors
from peso.semantic_ids.group_words import GroupWords
from peso.semantic_ids.item_tokenizer import FOLDER, load_item_tokenizer
from peso.semantic_ids.quality import LevelQuality, measure_levels, nearest_neighbours
from peso.semantic_ids.quantizers.additive import AdditiveCodebook

NUM_GROUPS, TITLES_PER_GROUP, WORDS_PER_GROUP = 12, 6, 4
_NUM_EXAMPLES, _NEIGHBOURS_SHOWN = 8, 5


@dataclass(frozen=True)
class Group:
    """Items that share their first code.

    Attributes:
        code: at level 1.
        num_items: behind it.
        words: that set their titles apart.
        titles: of some, those nearest the group's mean first.
    """

    code: int
    num_items: int
    words: list[str]
    titles: list[str]


@dataclass(frozen=True)
class NeighbourExample:
    """An item and the items nearest to it.

    Attributes:
        title: of the item.
        code: of the item, as tokens.
        neighbours: title, code as tokens, and how many first codes are shared, nearest first.
    """

    title: str
    code: str
    neighbours: list[tuple[str, str, int]]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What was found.

    Attributes:
        dataset: the data.
        semantic_ids: the codes that were judged.
        record: how they were made; None if they were imported.
        space: the encoder in whose vectors distances were taken.
        levels: quality per level.
        groups: the fullest branches of level 1.
        examples: some items and their neighbours.
    """

    dataset: Dataset
    semantic_ids: SemanticIds
    record: dict[str, Any] | None
    space: str
    levels: list[LevelQuality]
    groups: list[Group]
    examples: list[NeighbourExample]


def judge_workspace(workspace: Path) -> Judgement:
    """Measures the semantic IDs of a workspace.

    Distances are those between the vectors that the codes were made from. Imported codes come without vectors; they are
    judged by TF-IDF vectors of the items' texts or, where there are none, by collaborative vectors of block 0.

    Args:
        workspace: with data and semantic IDs.

    Raises:
        WorkspaceError: either is missing or damaged.
        DataError: there are fewer than two items.
        ConfigError: the encoder's model is gone or has changed.
    """
    dataset = load_dataset(workspace / "data")
    folder = workspace / "data" / "semantic_ids"
    semantic_ids = load_semantic_ids(folder, dataset.item_ids)
    if dataset.num_items < 2:
        raise DataError(f"workspace {workspace} has one item, which has no neighbours; there is nothing to judge.")
    read = read_workspace_items(workspace / "data", dataset)
    items = read.contents
    record, codebook = None, None
    if (folder / FOLDER).is_dir():
        record = read_facts(folder / RECORD, "record of the encoding", {"encoder": str})
        tokenizer = load_item_tokenizer(folder)
        encoder, space = tokenizer.encoder, str(record["encoder"])
        codebook = tokenizer.codebook if isinstance(tokenizer.codebook, AdditiveCodebook) else None
    else:
        space = "tfidf" if any(text.strip() for text in items.texts) else "collaborative"
        everything = np.arange(dataset.num_items)
        encoder = build_encoder(space, EncoderRequest(dataset, items, everything, None, None, 0))
    vectors = encode_in_batches(encoder, items, workspace / VECTORS_FOLDER)
    levels = measure_levels(vectors, semantic_ids.codes, semantic_ids.level_sizes, codebook, read.categories)
    return Judgement(
        dataset,
        semantic_ids,
        record,
        space,
        levels,
        _groups(items, vectors, semantic_ids.codes),
        _examples(items, vectors, semantic_ids),
    )


def title_of(items: ItemContents, item: int) -> str:
    """What an item is called: the first line of its text, or its id."""
    lines = items.texts[item].strip().splitlines()
    return lines[0] if lines else items.ids[item]


def _groups(items: ItemContents, vectors: Vectors, codes: IntArray) -> list[Group]:
    words = GroupWords([title_of(items, item) for item in range(len(items))])
    counts = np.bincount(codes[:, 0])
    groups = []
    for code in np.argsort(-counts, kind="stable")[:NUM_GROUPS].tolist():
        members = np.flatnonzero(codes[:, 0] == code)
        if len(members) == 0:
            break
        distances = ((vectors[members] - vectors[members].mean(axis=0)) ** 2).sum(axis=1)
        central = members[np.argsort(distances, kind="stable")][:TITLES_PER_GROUP].tolist()
        titles = [title_of(items, item) for item in central]
        groups.append(Group(code, len(members), words.name(members.tolist(), WORDS_PER_GROUP), titles))
    return groups


def _examples(items: ItemContents, vectors: Vectors, semantic_ids: SemanticIds) -> list[NeighbourExample]:
    asked, neighbours = nearest_neighbours(vectors, _NEIGHBOURS_SHOWN)
    shown = np.linspace(0, len(asked) - 1, min(_NUM_EXAMPLES, len(asked))).astype(np.int64)
    examples = []
    for place in shown.tolist():
        item = int(asked[place])
        near = [
            (title_of(items, other), semantic_ids.text(other), _num_shared(semantic_ids.codes[[item, other]]))
            for other in neighbours[place].tolist()
        ]
        examples.append(NeighbourExample(title_of(items, item), semantic_ids.text(item), near))
    return examples


def _num_shared(pair: IntArray) -> int:
    is_different = pair[0] != pair[1]
    return int(is_different.argmax()) if is_different.any() else len(is_different)
