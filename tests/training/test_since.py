"""Lists after what happened since the import: of the user, of others, of users nobody knew."""

from pathlib import Path

import pytest

from commands import assert_one_sentence, peso
from peso.data.storage import load_dataset
from peso.training.recommending import recommend_for_user
from peso.training.stream import run_stream
from streams import config, fill

USER = "u00007"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill(tmp_path_factory.mktemp("since") / "world")
    run_stream(folder, config(method="single"))
    return folder


def events(folder: Path, *rows: tuple[str, str]) -> Path:
    file = folder / "since.csv"
    file.write_text("\n".join(["user_id,item_id", *(f"{user},{item}" for user, item in rows)]) + "\n")
    return file


def listed(workspace: Path, user: str, since: Path | None = None) -> list[str]:
    return [item["item_id"] for item in recommend_for_user(workspace, user, 10, since=since)["recommendations"]]


def test_the_users_own_events_lengthen_the_history(workspace: Path, tmp_path: Path) -> None:
    before = listed(workspace, USER)
    since = events(tmp_path, (USER, before[0]))
    answer = recommend_for_user(workspace, USER, 10, since=since)
    assert answer["history"][-1]["item_id"] == before[0]
    after = [item["item_id"] for item in answer["recommendations"]]
    assert before[0] not in after, "what was taken is not named again in data without repeats"
    assert listed(workspace, USER) == before, "nothing is stored"


def test_what_others_took_counts_at_once(workspace: Path, tmp_path: Path) -> None:
    """Ten new users who took the user's last item and then another, which no list of theirs named."""
    last = recommend_for_user(workspace, USER, 10)["history"][-1]["item_id"]
    before = listed(workspace, USER)
    taken = {item["item_id"] for item in recommend_for_user(workspace, USER, 10)["history"]}
    dataset = load_dataset(workspace / "data")
    named = {dataset.item_ids[item] for item in dataset.event_item.tolist()}
    wanted = min(named - taken - set(before))
    rows = [(f"new {number}", item) for number in range(10) for item in (last, wanted)]
    assert listed(workspace, USER, events(tmp_path, *rows))[0] == wanted


def test_a_user_that_nobody_knew_gets_a_list(workspace: Path, tmp_path: Path) -> None:
    item = load_dataset(workspace / "data").item_ids[3]
    answer = recommend_for_user(workspace, "somebody", 5, since=events(tmp_path, ("somebody", item)))
    assert [one["item_id"] for one in answer["history"]] == [item]
    assert len(answer["recommendations"]) == 5


def test_wrong_tables_are_one_sentence(workspace: Path, tmp_path: Path) -> None:
    call: list[str | Path] = ["recommend", "-w", workspace, "--user", USER, "--since"]
    assert_one_sentence(peso(*call, events(tmp_path, (USER, "no such item"))), "row 1 names item 'no such item'")
    assert_one_sentence(peso(*call, events(tmp_path, (USER, ""))), "row 1 has no 'item_id'")
    other = tmp_path / "other.csv"
    other.write_text("user,item\na,b\n")
    assert_one_sentence(peso(*call, other), "but no 'user_id'")
    assert_one_sentence(peso(*call, tmp_path / "none.csv"), "cannot be read as csv")
    assert_one_sentence(peso("recommend", "-w", workspace, "--all", "--since", other), "--since", "--user")
