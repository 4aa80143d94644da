"""MiniOneRec's layout: the real release, and broken ones."""

import json
from pathlib import Path

import pytest

from peso.data.sources.minionerec import read_minionerec
from peso.data.statistics import block_statistics
from peso.errors import DataError

HEADER = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n"


def write_release(folder: Path, valid: str, test: str = 'A,,,"[0, 1, 2]",0,,\n') -> Path:
    folder.mkdir(exist_ok=True)
    items = {str(item): {"title": f"T {item}", "description": "['x &amp; y']", "brand": "B"} for item in range(3)}
    (folder / "S.item.json").write_text(json.dumps(items))
    (folder / "S.index.json").write_text(json.dumps({str(item): ["<a_0>", f"<b_{item}>"] for item in range(3)}))
    (folder / "S.valid.csv").write_text(HEADER + valid)
    (folder / "S.test.csv").write_text(HEADER + test)
    return folder


def test_rows_of_a_user_make_one_sequence(tmp_path: Path) -> None:
    imported = read_minionerec(write_release(tmp_path, 'A,,,"[0, 1]",2,,\n'))
    dataset = imported.dataset
    assert dataset.event_item.tolist() == [0, 1, 2, 0]
    assert dataset.event_block.tolist() == [0, 0, 1, 2]
    assert imported.source_codes is not None
    assert imported.source_codes.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert imported.texts["1"].text == "B x & y"
    (tmp_path / "S.train.csv").write_text(HEADER + 'A,,,"[0]",1,,\n')
    assert read_minionerec(tmp_path).dataset.fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        ('A,,,"[1, 1]",9,,\n', "line 2: item '9' has no semantic ID"),
        ('A,,,"[1",2,,\n', "line 2: history_item_id is not a list"),
        (',,,"[1]",2,,\n', "line 2: a target needs"),
        ('A,,,"[1]",2,,\nA,,,"[1]",2,,\n', "line 3: the history of user 'A' does not end"),
        ('"A\n', "cannot be read"),
    ],
)
def test_broken_rows(tmp_path: Path, valid: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_minionerec(write_release(tmp_path, valid))


def test_missing_files(tmp_path: Path) -> None:
    folder = write_release(tmp_path, "")
    (folder / "S.item.json").write_text(json.dumps({"0": {"title": "T"}}))
    with pytest.raises(DataError, match="has no item '1'"):
        read_minionerec(folder)
    (folder / "S.index.json").unlink()
    with pytest.raises(DataError, match=r"0 \*.index.json"):
        read_minionerec(folder)


def test_real_release(shared_data: Path) -> None:
    imported = read_minionerec(shared_data / "amazon-text")
    statistics = block_statistics(imported.dataset)
    assert imported.dataset.num_items == 3686
    assert statistics["interactions"].to_list() == [13678, 4532, 4533]  # block 1 and 2: a row each
    assert sum(bool(title) for title in imported.dataset.titles) == 3686
    assert imported.level_sizes == (252, 256, 256)
