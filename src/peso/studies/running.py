"""Runs what a plan still misses, and collects what is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peso.baselines.run import LIST_LENGTH, run_baselines
from peso.baselines.text import text_rivals
from peso.config import RunConfig, make_config
from peso.data.list_rules import ListRules
from peso.data.storage import load_dataset
from peso.errors import ConfigError
from peso.experiments.results import RunRecord, Variant, read_record
from peso.studies.plan import Arm, Plan
from peso.studies.side_by_side import Job, run_in_turn, run_side_by_side
from peso.studies.worlds import prepare_world


@dataclass(frozen=True, eq=False)
class Outcome:
    """A plan with its results.

    Attributes:
        plan: what was run.
        variants: by name: every arm in the plan's order, then the rivals without a network.
        workspaces: the workspace that each world's runs lie in; "" is the study's own.
    """

    plan: Plan
    variants: Mapping[str, Variant]
    workspaces: Mapping[str, Path]


def config_of(plan: Plan, arm: Arm, seed: int, config_file: Path | None) -> RunConfig:
    """The complete configuration of one run of a study.

    Raises:
        ConfigError: the file or an override is wrong.
    """
    measured = {"evaluation": {"next_block": "ranks" if plan.is_next_block_listed else "log_likelihood"}}
    return make_config(config_file, measured | arm.overrides | {"seed": seed})


def run_plan(workspace: Path, plan: Plan, num_seeds: int, config_file: Path | None, num_jobs: int = 1) -> Outcome:
    """Runs every arm with every seed; finished runs are reused, interrupted ones continued, bases shared.

    Args:
        workspace: with data.
        plan: what to run.
        num_seeds: seeds 0, 1, ... are used.
        config_file: values under every arm's overrides; None for the defaults.
        num_jobs: runs at a time, at least 1, each with its share of the cores.

    Raises:
        ConfigError: lists are shorter than those of rivals that they are compared with.
        PesoError: the data, a configuration or a run is not usable; what is finished by then stays.
    """
    configs = [(arm, config_of(plan, arm, seed, config_file)) for seed in range(num_seeds) for arm in plan.arms]
    lengths = [config.decoding.num_recommendations for _, config in configs]
    if plan.rivals and min(lengths) < LIST_LENGTH:
        raise ConfigError(
            f"decoding.num_recommendations is {min(lengths)}, and rivals list {LIST_LENGTH} items; a study that "
            f"compares them needs at least as many."
        )
    workspaces = {"": workspace}
    workspaces |= {name: prepare_world(workspace, name, settings) for name, settings in plan.worlds.items()}
    jobs = [Job(f"{arm.name}, seed {config.seed}", workspaces[arm.world], config) for arm, config in configs]
    folders = run_in_turn(jobs) if num_jobs == 1 else run_side_by_side(jobs, num_jobs)
    records: dict[str, list[RunRecord]] = {arm.name: [] for arm in plan.arms}
    for (arm, _), folder in zip(configs, folders, strict=True):
        records[arm.name].append(read_record(folder))
    variants = {name: _variant(name, runs) for name, runs in records.items()}
    if plan.rivals:
        dataset, decoding = load_dataset(workspace / "data"), configs[0][1].decoding
        rules = ListRules.choose(dataset, decoding.catalogue, decoding.repeats)
        measured = (*plan.rivals, *text_rivals(workspace, dataset))
        rivals = [read_record(folder) for folder in run_baselines(dataset, workspace, rules, measured)]
        variants |= {rival.result["method"]: _variant(rival.result["method"], [rival]) for rival in rivals}
    return Outcome(plan, variants, workspaces)


def _variant(name: str, runs: list[RunRecord]) -> Variant:
    return Variant(name, runs[0].result["method"], runs[0].result["lists"], runs)
