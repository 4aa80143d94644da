"""What studies find on a simulated world: known beforehand, so that a comparison that went wrong would show.

Tolerances are loose on purpose. Seen with 200 users, two seeds: updates gain 1.6 nats on a frozen model in their block
and 0.3 on the next one, peso and single are within 0.03 of each other, and the memory gains 0.2 of NDCG@10.
"""

from pathlib import Path
from typing import Any

import pytest

from peso.methods.registry import METHODS
from peso.studies.registry import run_study
from streams import fill

CONFIG = """
[backbone]
hidden_size = 32
num_layers = 1
num_heads = 2
intermediate_size = 64
epochs = 10
[adapter]
r = 4
lora_alpha = 8
[training]
epochs = 3
base_batch_targets = 64
rate_factors = [1.0]
learning_rate = 0.003
token_rows_learning_rate = 0.003
[decoding]
beam_width = 10
"""
COMPARED = ("frozen", "single", "peso", "sum_lora")
LEFT_OUT: list[str] = [method for method in METHODS if method not in COMPARED]
BOTH = ("in_block", "next_block")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill(tmp_path_factory.mktemp("world"), num_users=200)
    (folder / "world.toml").write_text(CONFIG)
    return folder


def study(workspace: Path, name: str, without: list[str]) -> dict[str, Any]:
    return run_study(name, workspace, 2, workspace / "results", workspace / "world.toml", without=without)


@pytest.fixture(scope="module")
def table(workspace: Path) -> dict[str, Any]:
    return study(workspace, "table2", LEFT_OUT)


def difference(table: dict[str, Any], ours: str, theirs: str, protocol: str) -> float:
    """Of mean log-likelihoods, in nats."""
    wanted = (ours, theirs, protocol, "log_likelihood")
    keys = ("ours", "theirs", "protocol", "metric")
    (found,) = (test["difference"] for test in table["tests"] if tuple(test[key] for key in keys) == wanted)
    return float(found)


@pytest.mark.parametrize(("protocol", "at_least"), [("in_block", 0.5), ("next_block", 0.1)])
def test_updates_pay(table: dict[str, Any], protocol: str, at_least: float) -> None:
    assert difference(table, "peso", "frozen", protocol) > at_least


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize(("other", "at_most"), [("single", 0.15), ("sum_lora", 0.3)])
def test_ways_of_updating_are_close_where_the_rate_suits(
    table: dict[str, Any], protocol: str, other: str, at_most: float
) -> None:
    assert abs(difference(table, "peso", other, protocol)) < at_most


def test_counts_and_model_are_better_together(table: dict[str, Any]) -> None:
    means = {arm["name"]: arm["mean"] for arm in [*table["arms"], *table["rivals"]]}
    for key in ("ndcg@10", "next_block_ndcg@10"):
        together = means["peso + memory"][key]
        assert together > means["peso"][key] + 0.05
        assert together > means["neighbours"][key] > means["popular"][key] + 0.05


def test_nobody_pays_for_the_anchor(workspace: Path, table: dict[str, Any]) -> None:
    """In no group of users does it lose much against single."""
    groups = study(workspace, "table3", LEFT_OUT)
    found = [test for test in groups["tests"] if {test["ours"], test["theirs"]} == {"peso", "single"}]
    assert {"new", "returning"} <= {test["group"] for test in found}
    for test in found:
        if test["metric"] == "log_likelihood":
            assert test["difference"] > -0.3, test


def test_a_model_knows_the_block_it_learned_best(workspace: Path, table: dict[str, Any]) -> None:
    """Row by row of the matrix: after the update on a block its targets are likelier than before it, of every seed."""
    found = study(workspace, "matrix", [])["facts"]["matrix"]
    for name in ("single", "peso"):
        for likelihoods in found[f"{name}, log_likelihood"]["matrices"]:
            for block in (1, 2):
                assert likelihoods[block][block - 1] > likelihoods[block - 1][block - 1] + 0.2
        assert min(found[f"{name}, log_likelihood"]["forward"]) > 0
