"""Every study's plan: configurations that exist, comparisons of what is run, and what cannot be run refused."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from catalogues import shop_dataset
from peso.config import make_config
from peso.data.simulate import SimulationSettings
from peso.data.storage import load_dataset, save_dataset
from peso.errors import ConfigError, DataError, PesoError
from peso.memory.order import SHARES, share_to_shuffle
from peso.methods.registry import METHODS
from peso.semantic_ids.catalogue import load_semantic_ids
from peso.studies.capacity import capacities
from peso.studies.curves import RATE_FACTORS
from peso.studies.methods_compared import plan_all_methods, plan_cumulative
from peso.studies.order import CHOSEN, FEWER_PASSES, plan_shares
from peso.studies.plan import Reencoded, UserSplit
from peso.studies.registry import STUDIES, run_study
from peso.studies.running import config_of
from peso.studies.tokenizers import plan_tokenizers
from peso.studies.worlds import prepare_world
from peso.training.materials import load_materials
from peso.types import MetricName, StudyName
from worlds import fill_workspace, tiny_dataset

CONFIG, DATASET = make_config(), tiny_dataset()


@pytest.mark.parametrize("name", get_args(StudyName))
def test_plans_name_what_they_run(name: StudyName) -> None:
    study = STUDIES[name]
    plan = study.plan(CONFIG, DATASET)
    names = [arm.name for arm in plan.arms]
    configs = [config_of(plan, arm, 1, None) for arm in plan.arms]
    worlds = {arm.name: arm.world for arm in plan.arms}
    assert study.name == name
    assert len(set(names)) == len(names)
    assert {arm.world for arm in plan.arms} - {""} == set(plan.worlds)
    of_one_data = {name for name, world in worlds.items() if isinstance(plan.worlds.get(world), Reencoded)}
    for pair in plan.pairs:
        assert worlds.get(pair.ours, "") == worlds.get(pair.theirs, "") or {pair.ours, pair.theirs} <= of_one_data
    same_world = [[config for arm, config in zip(plan.arms, configs, strict=True) if arm.world == world]
                  for world in {arm.world for arm in plan.arms}]  # fmt: skip
    for members in same_world:
        distinct = {config.model_dump_json() for config in members}
        assert len(distinct) >= len(members) - 3, "only the defaults are met under several names"
    detail = "ranks" if plan.is_next_block_listed else "log_likelihood"
    assert all(config.evaluation.next_block == detail and config.seed == 1 for config in configs)
    rivals = {rival.name for rival in plan.rivals}
    assert {side for pair in plan.pairs for side in (pair.ours, pair.theirs)} <= set(names) | rivals
    for curve in plan.curves.values():
        assert set(curve) <= set(names)
        assert list(curve.values()) == sorted(curve.values())


def test_every_registered_method_is_in_table_2() -> None:
    plan = plan_all_methods(CONFIG, DATASET)
    methods = [config_of(plan, arm, 0, None).method for arm in plan.arms]
    assert methods == [*METHODS, "peso", "single"]


def test_the_base_configuration_lies_under_every_arm(tmp_path: Path) -> None:
    file = tmp_path / "base.toml"
    file.write_text("[training]\nlearning_rate = 0.004\nepochs = 7\n")
    plan = STUDIES["fig4"].plan(make_config(file), DATASET)
    configs = {arm.name: config_of(plan, arm, 0, file) for arm in plan.arms}
    assert configs["peso, rate x0.25"].training.learning_rate == pytest.approx(0.001)
    assert configs["peso, rate x0.25"].training.token_rows_learning_rate == pytest.approx(0.00025)
    assert all(config.training.epochs == 7 for config in configs.values())
    assert len({str(config.base_part()) for config in configs.values()}) == 1


def test_figure_2_has_the_pull_in_every_metric_whatever_the_base_configuration_says(tmp_path: Path) -> None:
    file = tmp_path / "base.toml"
    file.write_text('[proximal]\nmetric = "fisher"\n')
    for name in ("fig2", "fig3", "directions"):
        plan = STUDIES[name].plan(make_config(file), DATASET)
        proximals = {arm.name: config_of(plan, arm, 0, file).proximal for arm in plan.arms if arm.name != "single"}
        if name == "fig2":
            pulls = [one for arm, one in proximals.items() if arm.startswith("peso, decoupled")]
            assert [one.metric for one in pulls] == [*get_args(MetricName), "softmax", "softmax"]
            assert [one.held for one in pulls][-3:] == ["all", "adapter", "token_rows"]
            assert {(one.form, one.strength) for one in pulls} == {("decoupled", 3.0)}
            assert {pair.ours for pair in plan.pairs} >= {f"peso, decoupled 3, {one.metric}" for one in pulls[1:-2]}
        forms = [one for arm, one in proximals.items() if one.form != "decoupled"]
        assert forms and all(one.metric == "softmax" for one in forms)


def test_metrics_differ_in_nothing_else_and_each_meets_the_configured_one(tmp_path: Path) -> None:
    file = tmp_path / "base.toml"
    file.write_text('[proximal]\nmetric = "counts"\n')
    plan = STUDIES["metrics"].plan(make_config(file), DATASET)
    proximals = {arm.name: config_of(plan, arm, 0, file).proximal for arm in plan.arms if arm.name != "single"}
    assert [one.metric for one in proximals.values()][2:] == [m for m in get_args(MetricName) if m != "counts"]
    assert {str(one.model_copy(update={"metric": "counts", "strength": 3.0})) for one in proximals.values()} == {
        str(proximals["peso"])
    }
    assert [name for name, one in proximals.items() if one.strength == 0] == ["peso, no pull"]
    assert {pair.ours for pair in plan.pairs if pair.theirs == "peso"} == set(proximals) - {"peso"}
    assert {pair.ours for pair in plan.pairs if pair.theirs == "single"} == set(proximals)


def test_one_share_is_chosen_by_counts_and_all_are_compared_with_the_real_order() -> None:
    dataset, config = shop_dataset(), make_config()
    plan = plan_shares(config, dataset)
    arms = {arm.name: config_of(plan, arm, 0, None) for arm in plan.arms}
    assert tuple(one.training.shuffled_share for one in arms.values()) == (*SHARES, 0.0)
    passes = {name: (one.backbone.epochs, one.training.epochs) for name, one in arms.items()}
    configured = (config.backbone.epochs, config.training.epochs)
    assert passes == dict.fromkeys(arms, configured) | {FEWER_PASSES: (10, 3)}
    (chosen,) = [name for name in arms if name.endswith(CHOSEN)]
    assert arms[chosen].training.shuffled_share == share_to_shuffle(dataset)
    (in_order,) = plan.references
    assert arms[in_order].training.shuffled_share == 0
    compared = {(pair.ours, pair.theirs) for pair in plan.pairs}
    assert compared == {(name, in_order) for name in arms if name != in_order} | {(chosen, FEWER_PASSES)}


def test_capacity_keeps_the_scale_of_the_adapter() -> None:
    for overrides in capacities(CONFIG).values():
        adapter = make_config(None, overrides).adapter
        assert adapter.lora_alpha / adapter.r == CONFIG.adapter.lora_alpha / CONFIG.adapter.r


def test_table_1_has_every_variant_of_the_cumulative_methods() -> None:
    names = [arm.name for arm in plan_cumulative(CONFIG, DATASET).arms]
    assert len(names) == 2 * (2 + 2 * 4 + 3) and {
        "user-disjoint: sd_lora, latest, inherit",
        "sum_lora, all, fresh",
        "sd_lora, latest, inherit",
    } < set(names)


def test_arms_and_worlds_may_be_left_out() -> None:
    whole = plan_cumulative(CONFIG, DATASET)
    plan = whole.without(["lsat", "user-disjoint"])
    assert [arm.name for arm in plan.arms] == [arm.name for arm in whole.arms if arm.name != "lsat" and not arm.world]
    others = {arm.name for arm in plan.arms} - {"single"}
    assert {pair.ours for pair in plan.pairs if pair.theirs == "single"} == others
    assert {pair.theirs for pair in plan.pairs if pair.ours == "peso"} == others - {"peso"} | {"single"}
    assert plan.worlds == {}
    assert plan.notes[-1] == "Left out: lsat, user-disjoint."
    assert whole.without([]) is whole
    assert STUDIES["drift"].plan(CONFIG, DATASET).without(["default"]).worlds.keys() >= {"no drift", "strong drift"}


def test_a_curve_loses_what_is_left_out() -> None:
    whole = STUDIES["fig4"].plan(CONFIG, DATASET)
    assert {curve: [*names] for curve, names in whole.curves.items()} == {
        method: [f"{method}, rate x{factor:g}" for factor in RATE_FACTORS] for method in ("single", "peso")
    }
    plan = whole.without(["single, rate x2", "peso, rate x0.1"])
    assert [*plan.curves["single"].values()] == [0.1, 0.25, 0.5, 1.0]
    assert [*plan.curves["peso"].values()] == [0.25, 0.5, 1.0, 2.0]
    assert {pair.ours for pair in plan.pairs} == {f"peso, rate x{factor}" for factor in ("0.25", "0.5", "1")}
    assert [*whole.without([*whole.curves["peso"]]).curves] == ["single"]


def test_rivals_may_be_left_out() -> None:
    whole = STUDIES["classical"].plan(CONFIG, DATASET)
    plan = whole.without(["sasrec_retrained", "peso + memory"])
    assert [rival.name for rival in whole.rivals if rival not in plan.rivals] == ["sasrec_retrained"]
    assert {pair.ours for pair in plan.pairs} == {"peso"}
    assert {pair.theirs for pair in plan.pairs} == {rival.name for rival in plan.rivals}


def test_capacities_may_be_left_out() -> None:
    whole = STUDIES["capacity"].plan(CONFIG, DATASET)
    plan = whole.without(["single, rank 2", "peso, rank 2"])
    assert len(plan.arms) == len(whole.arms) - 2
    assert plan.pairs == [
        pair for pair in whole.pairs if not {pair.ours, pair.theirs} & {"single, rank 2", "peso, rank 2"}
    ]


@pytest.mark.parametrize(
    ("study", "names", "message"),
    [
        ("capacity", ["full"], "--without full: the others are compared with it"),
        ("table2", ["pezo"], "--without pezo: there is none of this name; there are frozen; single; peso; "),
        ("table2", ["single"], "--without single: the others are compared with it"),
        ("drift", ["default: single"], "--without default: single: the others are compared with it"),
        ("fig4", ["single, rate x1"], "the others are compared with it"),
        ("gap", ["single"], "this study needs all of its configurations"),
        ("drift", [*STUDIES["drift"].plan(CONFIG, DATASET).worlds], "no configuration is left"),
    ],
)
def test_what_must_stay_is_not_left_out(study: StudyName, names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        STUDIES[study].plan(CONFIG, DATASET).without(names)


def test_data_that_do_not_suffice_are_refused() -> None:
    with pytest.raises(DataError, match="at least 3 blocks"):
        STUDIES["matrix"].plan(CONFIG, tiny_dataset(num_blocks=2))
    with pytest.raises(DataError, match="8 users"):
        STUDIES["drift"].plan(CONFIG, tiny_dataset(num_users=8))
    with pytest.raises(DataError, match="and 1 blocks"):
        STUDIES["drift"].plan(CONFIG, tiny_dataset(num_blocks=1))
    with pytest.raises(DataError, match="there are 0; use"):
        STUDIES["directions"].plan(CONFIG, tiny_dataset(num_blocks=1))


def test_short_lists_are_not_compared_with_long_ones(tmp_path: Path) -> None:
    fill_workspace(tmp_path, tiny_dataset())
    file = tmp_path / "short.toml"
    file.write_text("[decoding]\nnum_recommendations = 5\n")
    with pytest.raises(ConfigError, match="num_recommendations is 5, and rivals list 10"):
        run_study("table2", tmp_path, 1, tmp_path / "results", file)
    assert not (tmp_path / "runs").exists()


def test_a_configuration_that_can_be_read_only_once_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="can be read only once"):
        run_study("table2", tmp_path, 1, tmp_path / "results", tmp_path / "pipe")


def test_memories_are_told_apart_whatever_the_base_configuration_says(tmp_path: Path) -> None:
    file = tmp_path / "base.toml"
    file.write_text("[memory]\nuse = false\n")
    plan = STUDIES["memory"].plan(make_config(file), DATASET)
    memories = [config_of(plan, arm, 0, file).memory for arm in plan.arms[:3]]
    assert [memory.use for memory in memories] == [False, True, True]
    assert memories[1] != memories[2]


def test_half_of_one_pass_is_a_pass() -> None:
    plan = plan_shares(make_config(None, {"backbone": {"epochs": 1}, "training": {"epochs": 1}}), shop_dataset())
    fewer = next(config_of(plan, arm, 0, None) for arm in plan.arms if arm.name == FEWER_PASSES)
    assert (fewer.backbone.epochs, fewer.training.epochs) == (1, 1)


def test_worlds_are_made_once_and_told_apart_by_their_settings(tmp_path: Path) -> None:
    settings = SimulationSettings(num_users=12, num_items=200, num_blocks=3)
    first = prepare_world(tmp_path, "no drift", settings)
    written = (first / "data" / "dataset.json").stat().st_mtime_ns
    assert prepare_world(tmp_path, "no drift", settings) == first
    assert (first / "data" / "dataset.json").stat().st_mtime_ns == written
    assert load_dataset(first / "data").num_users == 12
    assert prepare_world(tmp_path, "no drift", settings.model_copy(update={"drift": 0.0})) != first
    with pytest.raises(PesoError, match="has taken every item"):
        prepare_world(tmp_path, "small", SimulationSettings(num_users=12, num_items=20))


def test_a_user_disjoint_world_has_the_workspaces_items_and_codes(tmp_path: Path) -> None:
    dataset = fill_workspace(tmp_path, tiny_dataset(num_users=40))
    folder = prepare_world(tmp_path, "user-disjoint", UserSplit())
    split = load_dataset(folder / "data")
    assert split.item_ids == dataset.item_ids and split.num_events == dataset.num_events
    natural, materials = load_materials(tmp_path, CONFIG), load_materials(folder, CONFIG)
    assert (materials.semantic_ids.codes == natural.semantic_ids.codes).all()
    assert materials.base_id != natural.base_id
    assert prepare_world(tmp_path, "user-disjoint", UserSplit(users_drawn_with_seed=1)) != folder


def test_a_tokenizers_world_has_the_workspaces_targets_under_other_codes(tmp_path: Path) -> None:
    dataset = shop_dataset()
    save_dataset(dataset, tmp_path / "data")
    settings = Reencoded(encoder="tfidf", quantizer="rq-kmeans", level_sizes=(8, 8, 8))
    folder = prepare_world(tmp_path, "tfidf, rq-kmeans", settings)
    assert load_dataset(folder / "data").fingerprint == dataset.fingerprint
    codes = load_semantic_ids(folder / "data" / "semantic_ids", dataset.item_ids)
    assert codes.level_sizes == (8, 8, 8) and len(np.unique(codes.codes, axis=0)) == dataset.num_items
    other = prepare_world(tmp_path, "random", settings.model_copy(update={"quantizer": "random"}))
    assert (load_semantic_ids(other / "data" / "semantic_ids", dataset.item_ids).codes != codes.codes).any()
    shutil.rmtree(folder / "data" / "semantic_ids")  # as if interrupted before it was encoded
    assert prepare_world(tmp_path, "tfidf, rq-kmeans", settings) == folder
    again = load_semantic_ids(folder / "data" / "semantic_ids", dataset.item_ids)
    assert (again.codes == codes.codes).all()
    assert not (tmp_path / "data" / "semantic_ids").exists()


def test_tokenizers_that_read_are_compared_where_there_is_something_to_read() -> None:
    with_titles = plan_tokenizers(CONFIG, shop_dataset())
    without = plan_tokenizers(CONFIG, replace(DATASET, titles=[""] * DATASET.num_items))
    assert set(without.worlds) < set(with_titles.worlds) and "tfidf, rq-kmeans" not in without.worlds
    assert {pair.theirs for pair in with_titles.pairs} == {"collaborative, random", "tfidf, rq-kmeans"}
