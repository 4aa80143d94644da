"""The authors' release: exact counts on the real one, clear errors on broken ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from peso.data.sources.peso_release import read_peso_release
from peso.data.statistics import block_statistics
from peso.errors import DataError
from peso.semantic_ids.catalogue import build_semantic_ids

# users, interactions, training targets, new items, users with earlier history, unseen test targets
CDS = [
    (8494, 81355, 64367, 31649, 0, 2188),
    (1013, 8686, 6660, 1866, 332, 204),
    (866, 7488, 5756, 1796, 341, 188),
    (1078, 9468, 7312, 2133, 406, 224),
    (1074, 9421, 7273, 1747, 328, 186),
]
GAMES = [
    (12447, 91273, 66379, 18450, 0, 1660),
    (1035, 7491, 5421, 1467, 229, 186),
    (1091, 7492, 5310, 1490, 219, 183),
    (1949, 14646, 10748, 2612, 246, 258),
    (1791, 13271, 9689, 1916, 319, 222),
]


@pytest.mark.parametrize(
    ("name", "counts", "num_items", "num_shared"),
    [
        ("CDs_and_Vinyl_cl_0.6_0_5_3_0", CDS, 39191, 39191 - 38508),
        ("Video_Games_cl_0.6_0_5_3_0", GAMES, 25935, 25935 - 25707),
    ],
)
def test_real_release(
    shared_data: Path, name: str, counts: list[tuple[int, ...]], num_items: int, num_shared: int
) -> None:
    imported = read_peso_release(shared_data / "peso-release" / name)
    columns = ["users", "interactions", "training_targets", "new_items", "users_with_earlier_history"]
    statistics = block_statistics(imported.dataset)
    assert statistics.select([*columns, "unseen_test_targets"]).rows() == counts
    assert statistics["test_targets"].to_list() == [row[0] for row in counts]
    assert imported.source_codes is not None
    semantic_ids = build_semantic_ids(imported.dataset, imported.source_codes, imported.level_sizes)
    assert semantic_ids.num_items == num_items
    assert len({tuple(codes) for codes in semantic_ids.codes.tolist()}) == num_items
    # As many items move as there are too few distinct codes: nobody else's code changes.
    assert semantic_ids.num_moved == num_shared


def write_release(folder: Path, blocks: list[Any], index: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for number, block in enumerate(blocks):
        (folder / f"x.block_{number}.json").write_text(block if isinstance(block, str) else json.dumps(block))
    (folder / "x.index.json").write_text(json.dumps(index))
    return folder


def entry(previous: list[str], current: list[str]) -> dict[str, list[str]]:
    return {"previous_block": previous, "current_block": current}


INDEX = {"1": ["<a_0>", "<b_1>"], "2": ["<a_0>", "<b_1>"], "10": ["<a_2>", "<b_0>"]}
BLOCKS = [{"7": entry([], ["1", "2"])}, {"7": entry(["1", "2"], ["10"]), "8": entry([], ["2", "1"])}]


def test_small_release(tmp_path: Path) -> None:
    imported = read_peso_release(write_release(tmp_path, BLOCKS, INDEX))
    assert imported.dataset.item_ids == ["1", "2", "10"]
    assert imported.dataset.event_item.tolist() == [0, 1, 2, 1, 0]
    assert imported.dataset.event_block.tolist() == [0, 0, 1, 1, 1]
    assert imported.level_sizes == (3, 2)


@pytest.mark.parametrize(
    ("blocks", "index", "message"),
    [
        ([BLOCKS[0], json.dumps(BLOCKS[1])[:-9]], INDEX, r"block_1.json: not valid JSON at line 1, column \d+"),
        (BLOCKS, {"1": ["<a_0>"]}, "item '2' of user '7' has no code"),
        ([BLOCKS[0], {"8": entry([], ["2"])}], INDEX, "user '8' has one event"),
        (BLOCKS[::-1], INDEX, "blocks in order"),
        (BLOCKS, INDEX | {"3": ["<a_0>"]}, "item '3' has 1 codes, others have 2"),
        (BLOCKS, INDEX | {"3": ["<b_0>", "<a_0>"]}, "item '3' has '<b_0>' at level 1"),
        (BLOCKS, INDEX | {"3": ["<a_0>", "<b_-1>"]}, "item '3' has '<b_-1>' at level 2"),
        (BLOCKS, INDEX | {"3": ["<a_0>", "<b_99999999999999999999>"]}, "number below 1,000,000"),
        (BLOCKS, INDEX | {"3": []}, "item '3' needs a list of code tokens"),
        ([BLOCKS[0], {}], INDEX, "block_1.json: expected a JSON object with at least one entry"),
        (["[" * 100_000, BLOCKS[1]], INDEX, "nested too deep"),
        ([{"7": entry([], ["1", "2"]) | {"current_block": []}}, BLOCKS[1]], INDEX, "empty current_block"),
        ([{"7": ["1"]}, BLOCKS[1]], INDEX, "user '7' needs 'previous_block'"),
        ([], INDEX, "no \\*.block_N.json file"),
    ],
)
def test_broken_release(tmp_path: Path, blocks: list[Any], index: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_peso_release(write_release(tmp_path, blocks, index))


def test_previous_block_must_be_what_the_earlier_blocks_say(tmp_path: Path) -> None:
    for previous in (["1"], ["2", "1"], ["1", "2", "10"]):
        folder = write_release(tmp_path, [BLOCKS[0], {"7": entry(previous, ["10"])}], INDEX)
        with pytest.raises(DataError, match=r"block_1.json: previous_block of user '7' has"):
            read_peso_release(folder)


def test_items_that_nobody_took_are_kept(tmp_path: Path) -> None:
    imported = read_peso_release(write_release(tmp_path, BLOCKS, INDEX | {"shoe": ["<a_5>", "<b_0>"]}))
    assert imported.dataset.item_ids == ["1", "2", "10", "shoe"]
    assert imported.level_sizes == (6, 2)
    assert imported.dataset.item_first_block.tolist() == [0, 0, 1, 2]


def test_a_user_named_twice_is_refused(tmp_path: Path) -> None:
    twice = json.dumps(BLOCKS[0])[:-1] + ", " + json.dumps(BLOCKS[0])[1:]
    with pytest.raises(DataError, match=r"block_0.json: the key '7' occurs twice"):
        read_peso_release(write_release(tmp_path, [twice, BLOCKS[1]], INDEX))


def test_two_data_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = write_release(tmp_path, BLOCKS, INDEX)
    (folder / "y.block_1.json").write_text(json.dumps(BLOCKS[1]))
    with pytest.raises(DataError, match=r"two files of block 1, x.block_1.json and y.block_1.json"):
        read_peso_release(folder)
    (folder / "y.block_1.json").unlink()
    (folder / "y.index.json").write_text(json.dumps(INDEX))
    with pytest.raises(DataError, match="holds 2 "):
        read_peso_release(folder)


def test_missing_block(tmp_path: Path) -> None:
    folder = write_release(tmp_path, BLOCKS, INDEX)
    (folder / "x.block_0.json").unlink()
    with pytest.raises(DataError, match="has block 1 but no"):
        read_peso_release(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        read_peso_release(tmp_path / "nowhere")
