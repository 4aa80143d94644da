"""Two whole studies on a tiny world: numbers as in the runs' results, nothing run twice, honest words."""

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

import peso.training.base_training
import peso.training.candidates
import peso.training.measure
import peso.training.search
import peso.training.stream
from peso.baselines.run import BASELINES
from peso.config import make_config
from peso.data.storage import load_dataset
from peso.errors import WorkspaceError
from peso.evaluation.forgetting import transfer
from peso.evaluation.significance import Comparison, holm
from peso.experiments.results import RunRecord, Variant, read_record
from peso.methods.registry import METHODS
from peso.studies.anchor import plan_rivals
from peso.studies.chosen_rates import with_chosen_rates
from peso.studies.claims import correct_together, sentences
from peso.studies.curves import best_of_curves
from peso.studies.measures import NDCG, run_numbers, spread, spread_text
from peso.studies.model_matrix import gains, matrix_of, targets_of_every_model
from peso.studies.plan import Pair, Plan
from peso.studies.registry import STUDIES, run_study
from peso.studies.running import Outcome
from peso.studies.writing import study_record, write_study
from peso.types import StudyName
from worlds import TINY_CONFIG, fill_workspace, tiny_dataset

SEEDS = 2


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    fill_workspace(folder, tiny_dataset(30, 40, 3))
    (folder / "small.toml").write_text(TINY_CONFIG)
    return folder


def study(name: str, workspace: Path, folder: str = "results") -> dict[str, Any]:
    return run_study(name, workspace, SEEDS, workspace / folder, workspace / "small.toml")


@pytest.fixture(scope="module")
def table(workspace: Path) -> dict[str, Any]:
    return study("table2", workspace)


@pytest.fixture(scope="module")
def matrix(workspace: Path, table: dict[str, Any]) -> dict[str, Any]:
    return study("matrix", workspace)


def test_a_study_without_some_arms_shows_the_others_alike(workspace: Path, table: dict[str, Any]) -> None:
    results, config_file = workspace / "fewer", workspace / "small.toml"
    fewer = run_study("table2", workspace, SEEDS, results, config_file, without=["lsat", "peso + memory"])
    assert fewer["arms"] == [arm for arm in table["arms"] if arm["name"] not in ("lsat", "peso + memory")]
    assert len(fewer["tests"]) < len(table["tests"])
    assert fewer["command"].endswith("small.toml --without lsat --without 'peso + memory'")
    assert "- Left out: lsat, peso + memory." in (results / "table2.md").read_text()


@pytest.mark.parametrize("name", sorted(STUDIES.keys() - {"table2", "matrix", "directions"}))
def test_every_study_writes_its_page(workspace: Path, table: dict[str, Any], tmp_path: Path, name: StudyName) -> None:
    """From the records of one method in the place of every other's: where nothing differs, nothing is claimed."""
    runs = [read_record(folder) for folder in sorted((workspace / "runs").glob("peso-*"))]
    of_peso = [run for run in runs if not run.result["config"]["memory"]["use"]]
    (rival,) = (read_record(folder) for folder in (workspace / "baselines").glob("successor-*"))
    assert len(of_peso) == SEEDS
    config = make_config(workspace / "small.toml")
    study, dataset = STUDIES[name], load_dataset(workspace / "data")
    plan = study.plan(config, dataset)
    variants = {arm.name: Variant(arm.name, "peso", "known", of_peso) for arm in plan.arms}
    variants |= {one.name: Variant(one.name, one.name, "known", [rival]) for one in plan.rivals}
    outcome = Outcome(plan, variants, {world: workspace for world in ("", *plan.worlds)})
    findings = with_chosen_rates(study.present(outcome), outcome)
    write_study(tmp_path, study_record(study, outcome, findings, config, range(SEEDS), "peso study"), findings)
    page = (tmp_path / f"{name}.md").read_text()
    assert all(arm.name in page for arm in plan.arms)
    assert (tmp_path / f"{name}.svg").stat().st_size > 1000
    between_arms = [
        test for test in findings.tests if {test.pair.ours, test.pair.theirs} <= {a.name for a in plan.arms}
    ]
    assert all(test.comparison.p_value == 1 for test in between_arms)


def results_of(workspace: Path, method: str, has_memory: bool = False) -> list[dict[str, Any]]:
    """The results of a method's runs at the small configuration's rank, with lists under both protocols, by seed."""
    found = [json.loads(path.read_text()) for path in (workspace / "runs").glob(f"{method}-seed*/result.json")]
    found = [result for result in found if result["config"]["memory"]["use"] == has_memory]
    found = [result for result in found if result["config"]["adapter"]["r"] == 2]
    found = [result for result in found if result["config"]["evaluation"]["next_block"] == "ranks"]
    return sorted(found, key=lambda result: result["seed"])


def test_numbers_are_the_means_of_the_runs_results(workspace: Path, table: dict[str, Any]) -> None:
    arms = {arm["name"]: arm for arm in table["arms"]}
    assert [*arms][-2:] == ["peso + memory", "single + memory"]
    assert table["seeds"] == [0, 1]
    for name in ("frozen", "single", "peso", "peso + memory", "single + memory"):
        results = results_of(workspace, name.split()[0], has_memory="memory" in name)
        assert [run["run_id"] for run in arms[name]["runs"]] == [result["run_id"] for result in results]
        for key in ("hit@5", "hit@10", "ndcg@5", "ndcg@10", "log_likelihood"):
            by_seed = [np.mean([block[key] for block in result["blocks"]]) for result in results]
            assert [run["numbers"][key] for run in arms[name]["runs"]] == pytest.approx(by_seed)
            assert arms[name]["mean"][key] == pytest.approx((by_seed[0] + by_seed[1]) / 2)
            assert arms[name]["std"][key] == pytest.approx(abs(by_seed[0] - by_seed[1]) / np.sqrt(2))
        for key in ("ndcg@10", "log_likelihood"):
            following = [np.mean([entry[key] for entry in result["next_block"]]) for result in results]
            assert arms[name]["mean"][f"next_block_{key}"] == pytest.approx(np.mean(following))
    assert {data["fingerprint"] for data in table["data"]} == {result["data_fingerprint"] for result in results}
    assert table["versions"] == [results[0]["versions"]]
    assert [rival["name"] for rival in table["rivals"]] == [baseline.name for baseline in BASELINES]
    assert json.loads((workspace / "results" / "table2.json").read_text()) == table


def test_tests_are_about_the_same_numbers_and_corrected_over_the_methods(table: dict[str, Any]) -> None:
    means = {arm["name"]: arm["mean"] for arm in [*table["arms"], *table["rivals"]]}
    families: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for test in table["tests"]:
        key = test["metric"] if test["protocol"] == "in_block" else f"next_block_{test['metric']}"
        assert test["difference"] == pytest.approx(means[test["ours"]][key] - means[test["theirs"]][key], abs=1e-9)
        families.setdefault((test["family"], test["protocol"], test["metric"]), []).append(test)
    sides = {family: {(test["ours"], test["theirs"]) for test in members} for family, members in families.items()}
    rivals, others = {baseline.name for baseline in BASELINES}, {*METHODS} - {"single"}
    remembering = {"peso + memory", "single + memory"}
    to_single, of_peso = "against single", "peso against the others"
    ranks, next_block = ("in_block", "ndcg@10"), ("next_block", "log_likelihood")
    next_ranks = ("next_block", "ndcg@10")
    assert sides[to_single, *ranks] == {(name, "single") for name in others | rivals | remembering}
    assert sides[to_single, *next_block] == {(name, "single") for name in others | remembering}
    assert sides[of_peso, *ranks] == sides[of_peso, *next_block] == {("peso", name) for name in others - {"peso"}}
    assert sides[to_single, *next_ranks] == sides[to_single, *ranks], "counts give lists"
    against_counts = {("peso + memory", name) for name in rivals}
    assert sides["peso + memory against counts", *ranks] == sides["peso + memory against counts", *next_ranks]
    assert sides["peso + memory against counts", *ranks] == against_counts
    assert sides["both with a memory", *next_block] == {("peso + memory", "single + memory")}
    assert len(families) == 7 + 7 + 5 + 7, "counts give no likelihoods"
    for members in families.values():
        assert [test["p_value_holm"] for test in members] == holm([test["p_value"] for test in members])


def test_the_page_says_what_was_run_and_what_may_be_said(workspace: Path, table: dict[str, Any]) -> None:
    page = (workspace / "results" / "table2.md").read_text()
    assert f"peso study table2 --workspace {workspace} --seeds 2" in page
    for arm in table["arms"]:
        assert spread_text(arm["mean"]["ndcg@10"], arm["std"]["ndcg@10"]) in page
    undecided = [test for test in table["tests"] if test["p_value_holm"] >= 0.05]
    decided = [test for test in table["tests"] if test["p_value_holm"] < 0.05]
    assert undecided
    assert page.count("is better than") + page.count("is worse than") == len(decided)
    assert "No difference can be claimed between" in page
    assert ElementTree.parse(workspace / "results" / "table2.svg").getroot().tag.endswith("svg")


def test_a_second_call_trains_and_measures_nothing(
    workspace: Path, table: dict[str, Any], matrix: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: Any, **named: Any) -> None:
        raise AssertionError("a finished study runs nothing")

    for module, name in (
        (peso.training.base_training, "train_stage"), (peso.training.search, "train_stage"),
        (peso.training.candidates, "train_stage"), (peso.training.stream, "load_state"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, forbidden)
    monkeypatch.setattr("peso.studies.model_matrix.load_base", forbidden)
    assert study("table2", workspace, "again") == table
    assert study("matrix", workspace, "again") == matrix
    for kind in ("svg", "md"):
        first, again = (workspace / folder / f"table2.{kind}" for folder in ("results", "again"))
        assert first.read_bytes() == again.read_bytes()


def test_only_what_is_missing_is_run(workspace: Path, table: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (lost,) = (workspace / "runs").glob("frozen-seed1-*")
    shutil.rmtree(lost)
    measured = []
    original = peso.training.measure.measure_in_block

    def counting(materials: Any, reader: Any, memory: Any, block: int) -> Any:
        measured.append((materials.run_id, block))
        return original(materials, reader, memory, block)

    monkeypatch.setattr(peso.training.stream, "measure_in_block", counting)
    again = study("table2", workspace, "repaired")
    assert measured == [(lost.name, 1), (lost.name, 2)]
    for key in ("tests", "rivals"):
        assert again[key] == table[key]


def test_the_matrix_agrees_with_the_runs(workspace: Path, matrix: dict[str, Any]) -> None:
    frozen = results_of(workspace, "frozen")
    for method in ("single", "peso"):
        for metric in ("log_likelihood", "ndcg@10"):
            facts = matrix["facts"]["matrix"][f"{method}, {metric}"]
            for seed, result in enumerate(results_of(workspace, method)):
                values = np.array(facts["matrices"][seed])
                assert values.shape == (3, 2)
                own = [block[metric] for block in result["blocks"]]
                assert np.diagonal(values[1:]) == pytest.approx(own, abs=1e-6)
                assert values[0] == pytest.approx([block[metric] for block in frozen[seed]["blocks"]], abs=1e-6)
                found = transfer(values)
                assert facts["backward"][seed] == pytest.approx(values[2, 0] - values[1, 0])
                assert facts["forgetting"][seed] == pytest.approx(values[1, 0] - values[2, 0])
                assert facts["forward"][seed] == pytest.approx(found.forward)
    tests = {(test["family"], test["metric"], test["ours"]): test for test in matrix["tests"]}
    backward = np.mean(matrix["facts"]["matrix"]["peso, log_likelihood"]["backward"])
    found_test = tests["backward transfer", "log_likelihood", "peso, last model"]
    assert found_test["difference"] == pytest.approx(backward)
    ours = np.mean(matrix["facts"]["matrix"]["single, log_likelihood"]["backward"])
    between = tests["backward transfer, peso against single", "log_likelihood", "peso's backward transfer"]
    assert between["difference"] == pytest.approx(backward - ours)


def test_the_gap_is_shared_out_between_one_lora_and_all_weights(workspace: Path, table: dict[str, Any]) -> None:
    gap = study("gap", workspace)
    arms = {arm["name"]: arm for arm in gap["arms"]}
    assert [*arms] == ["single, rank 1", "peso, rank 1", "single, rank 2", "peso, rank 2", "full"]
    whole = next(arm for arm in table["arms"] if arm["name"] == "single")
    assert arms["single, rank 2"]["runs"] == whole["runs"], "the runs of table2"
    for key in ("log_likelihood", "next_block_log_likelihood"):
        by_seed = {name: [run["numbers"][key] for run in arm["runs"]] for name, arm in arms.items()}
        for name in ("peso, rank 1", "single, rank 2", "peso, rank 2"):
            for seed, share in enumerate(gap["facts"]["shares"][name][key]):
                low, ours, high = (by_seed[arm][seed] for arm in ("single, rank 1", name, "full"))
                assert share is None if high <= low else share == pytest.approx((ours - low) / (high - low))
    assert "Share of the distance from single, rank 1 to full" in (workspace / "results" / "gap.md").read_text()


def test_gains_are_differences_target_by_target(workspace: Path, matrix: dict[str, Any]) -> None:
    result = results_of(workspace, "single")[0]
    run = RunRecord(workspace / "runs" / result["run_id"], result)
    targets = targets_of_every_model(workspace, run)
    values = matrix_of(targets, "log_likelihood")
    gained = gains(targets, [(2, 0, 2)])
    assert len(gained) == len(targets.filter((pl.col("model_block") == 0) & (pl.col("block") == 2)))
    assert gained["log_likelihood"].mean() == pytest.approx(values[2, 1] - values[0, 1])


def record(valid_losses: list[float], seed: int = 0) -> RunRecord:
    """A run that is only a log: block 1 with an epoch that was dropped, block 2 with one that was kept."""
    kept = [
        {"block": block, "valid_loss": loss, "gradient_ratio": 0.1 * block, "selected": True}
        for block, loss in enumerate(valid_losses, start=1)
    ]
    dropped = [{"block": 1, "valid_loss": 99.0, "gradient_ratio": None, "selected": False}]
    base = [{"block": 0, "valid_loss": 50.0, "gradient_ratio": None, "selected": True}]
    means = dict.fromkeys(("hit@5", "hit@10", "ndcg@5", "ndcg@10", "log_likelihood"), 0.5)
    result = {
        "seed": seed, "mean": means, "mean_next_block": means, "training": base + dropped + kept,
        "blocks": [{"train_seconds": 2.0}, {"train_seconds": 3.0}],
        "movement": [{"block": 1, "distance": 3.0}, {"block": 1, "distance": 4.0}, {"block": 2, "distance": 1.0}],
    }  # fmt: skip
    return RunRecord(Path("nowhere"), result)


def test_numbers_of_a_log_by_hand() -> None:
    numbers = run_numbers(record([6.0, 8.0]).result)
    assert numbers["valid_loss"] == 7.0
    assert numbers["distance"] == pytest.approx((5.0 + 1.0) / 2)
    assert numbers["anchor_ratio"] == pytest.approx(0.15)
    assert numbers["update_seconds"] == 5.0
    assert np.array(spread([1.0, 3.0]), dtype=float) == pytest.approx([2.0, np.sqrt(2)])
    assert spread([1.0]) == (1.0, None)
    assert spread([1.0, None]) == spread([]) == (None, None)
    assert spread_text(0.02523, 0.0007) == "0.0252 ± 0.0007"
    assert (spread_text(6.19, None), spread_text(None, None)) == ("6.190", "-")
    assert spread_text(-13.1, 0.05) == "-13.100 ± 0.050"


def test_the_best_of_a_family_has_the_least_validation_loss() -> None:
    variants = {
        name: Variant(name, "single", "", [record(losses)])
        for name, losses in {"a": [6.0, 8.0], "b": [6.5, 6.9], "c": [1.0, 20.0]}.items()
    }
    plan = Plan([], curves={"first": {"a": 1.0, "b": 2.0}, "second": {"a": 1.0, "c": 2.0}})
    assert best_of_curves(Outcome(plan, variants, {})) == {"first": "b", "second": "a"}


def test_rates_are_compared_at_equal_ones_and_at_the_best_of_each_method(
    workspace: Path, table: dict[str, Any]
) -> None:
    left_out = [f"{method}, rate x{factor}" for method in ("single", "peso") for factor in ("0.1", "0.25", "2")]
    config_file = workspace / "small.toml"
    record = run_study("fig4", workspace, SEEDS, workspace / "rates", config_file, without=left_out)
    losses = {arm["name"]: arm["mean"]["valid_loss"] for arm in record["arms"]}
    best = {
        method: min((f"{method}, rate x0.5", f"{method}, rate x1"), key=lambda name: losses[name])
        for method in ("single", "peso")
    }
    assert record["facts"]["best"] == best
    compared: dict[str, set[Any]] = {"equal rates": set(), "each at its best rate": set()}
    for test in record["tests"]:
        compared[test["family"]].add((test["ours"], test["theirs"]))
    assert compared["equal rates"] == {(f"peso, rate x{factor}", f"single, rate x{factor}") for factor in ("0.5", "1")}
    assert compared["each at its best rate"] == {(best["peso"], best["single"])}


def test_every_family_of_the_anchor_study_holds_its_default(workspace: Path) -> None:
    from peso.config import make_config

    plan = plan_rivals(make_config(), tiny_dataset())
    training = {"rate_factors": [1.0]}
    pull_alone = make_config(
        None, {"method": "peso", "proximal": {"share": 1.0}, "memory": {"use": False}, "training": training}
    )
    configs = {arm.name: make_config(None, arm.overrides) for arm in plan.arms}
    for family in ("anchor", "anchor + weight decay", "anchor + learning rate"):
        assert pull_alone in [configs[name] for name in plan.curves[family]]


def test_a_page_shows_the_rates_that_were_chosen_and_how_often_at_an_end(
    workspace: Path, table: dict[str, Any]
) -> None:
    assert "chosen_rates" not in table["facts"]  # the small configuration has nothing to choose
    choosing, results = workspace / "choosing.toml", workspace / "choosing"
    choosing.write_text(TINY_CONFIG.replace("[1.0]", "[0.5, 0.25, 1.0]"))
    without: list[str] = [method for method in METHODS if method not in ("frozen", "single", "peso")]
    without += ["single + memory", "peso + memory"]
    record = run_study("table2", workspace, SEEDS, results, choosing, without=without)
    assert set(record["facts"]["chosen_rates"]) == {"single", "peso"}  # frozen trains at no rate
    page = (results / "table2.md").read_text()
    for name, by_block in record["facts"]["chosen_rates"].items():
        (arm,) = [arm for arm in record["arms"] if arm["name"] == name]
        runs = [json.loads((workspace / "runs" / run["run_id"] / "result.json").read_text()) for run in arm["runs"]]
        for block in (1, 2):
            assert by_block[block] == [run["blocks"][block - 1]["rate_factor"] for run in runs]
        chosen = [factor for factors in by_block.values() for factor in factors]
        tried = sorted({trial["rate_factor"] for run in runs for trial in run["rates"]})
        assert 0.5 in tried and len(tried) > 1
        factors = ", ".join(f"{factor:g}" for factor in tried)
        ends = f"| {factors} | {chosen.count(tried[0])} of 4 | {chosen.count(tried[-1])} of 4 |"
        assert any(line.startswith(f"| {name} |") and line.endswith(ends) for line in page.splitlines())


def test_sentences_follow_the_corrected_value() -> None:
    def comparison(p_value: float, difference: float) -> Comparison:
        return Comparison("ndcg@10", 0.1 + difference, 0.1, difference, None, -0.1, 0.1, p_value, 9, 2, 9)

    figures = {"a": (0.001, 0.02), "c": (0.03, -0.01), "d": (0.04, 0.01)}
    found = [(Pair(name, "b", "f"), comparison(*figure)) for name, figure in figures.items()]
    lines = sentences(correct_together(found, NDCG))
    assert len(lines) == 3
    assert "a is better than b" in lines[1]
    assert "corrected 0.0030" in lines[1]
    assert "No difference can be claimed between c and b" in lines[2]  # at 0.03 alone it would have been
    assert "; d and b (+0.0100 [" in lines[2]
    alone = sentences(correct_together([(Pair("c", "b", "f"), comparison(0.02, -0.01))], NDCG))
    assert "c is worse than b" in alone[1]


def test_a_workspace_without_data_stays_untouched(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="holds no data"):
        run_study("table2", tmp_path / "empty", 1, tmp_path / "results")
    assert list(tmp_path.iterdir()) == []
