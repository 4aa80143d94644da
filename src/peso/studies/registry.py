"""Every study by name: a new one is a file, a line here, and a name in `peso.types.StudyName`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peso.config import make_config
from peso.data.examples import num_later_tests
from peso.data.simulate import SimulationSettings
from peso.data.storage import load_dataset
from peso.errors import DataError, WorkspaceError
from peso.studies.anchor import ANCHOR
from peso.studies.averaging import AVERAGING_STUDY
from peso.studies.capacity import CAPACITY
from peso.studies.chosen_rates import with_chosen_rates
from peso.studies.classical import CLASSICAL_STUDY
from peso.studies.curves import FIGURE_3, FIGURE_4
from peso.studies.directions import DIRECTIONS
from peso.studies.drift import DRIFT
from peso.studies.findings import Study
from peso.studies.gap import GAP
from peso.studies.matrix import MATRIX
from peso.studies.memory import MEMORY
from peso.studies.methods_compared import FIGURE_2, TABLE_1, TABLE_2
from peso.studies.metrics import METRICS
from peso.studies.order import ORDER
from peso.studies.request import check_request
from peso.studies.running import run_plan
from peso.studies.tokenizers import TOKENIZERS
from peso.studies.user_groups import TABLE_3
from peso.studies.writing import study_record, write_study
from peso.types import StudyName

STUDIES: dict[StudyName, Study] = {
    study.name: study
    for study in (
        TABLE_1,
        TABLE_2,
        TABLE_3,
        FIGURE_2,
        METRICS,
        FIGURE_3,
        FIGURE_4,
        ANCHOR,
        AVERAGING_STUDY,
        ORDER,
        MATRIX,
        CAPACITY,
        GAP,
        DRIFT,
        DIRECTIONS,
        MEMORY,
        TOKENIZERS,
        CLASSICAL_STUDY,
    )
}


def run_study(
    name: str,
    workspace: Path,
    num_seeds: int,
    results: Path,
    config_file: Path | None = None,
    num_jobs: int = 1,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs what a study still misses and writes its files.

    Args:
        name: one of `STUDIES`.
        workspace: with data; runs and bases are kept there.
        num_seeds: seeds 0 to num_seeds - 1, at least 1.
        results: folder of `<study>.json`, `.md` and `.svg`.
        config_file: TOML with values under every arm's own.
        num_jobs: runs at a time, at least 1; the same results up to the rounding of fewer threads.
        without: arms, or worlds, to leave out.

    Returns:
        What was written to the JSON file.

    Raises:
        ConfigError: the name, the number of seeds or of jobs, an arm to leave out, or the file is wrong.
        WorkspaceError: the workspace holds no data, a run is being written by another process, or `results` is no
            folder.
        DataError: the data do not suffice for this study.
    """
    check_request(name, num_seeds, num_jobs, config_file)
    study = next(study for known, study in STUDIES.items() if known == name)
    config = make_config(config_file)
    dataset = load_dataset(workspace / "data")
    plan = study.plan(config, dataset).without(without)
    is_simulated = all(isinstance(plan.worlds.get(arm.world), SimulationSettings) for arm in plan.arms)
    if not is_simulated and not num_later_tests(dataset):
        raise DataError(
            f"study {name} needs test targets, and no later block has a user with three events; cut the log into "
            "longer blocks."
        )
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"results folder {results} cannot be made ({error.strerror}); check --results.") from None
    outcome = run_plan(workspace, plan, num_seeds, config_file, num_jobs)
    findings = with_chosen_rates(study.present(outcome), outcome)
    command = ["peso", "study", name, "--workspace", str(workspace), "--seeds", str(num_seeds)]
    command += [] if config_file is None else ["--config", str(config_file)]
    command += [] if num_jobs == 1 else ["--jobs", str(num_jobs)]
    command += [word for arm in without for word in ("--without", arm)]
    record = study_record(study, outcome, findings, config, range(num_seeds), shlex.join(command))
    write_study(results, record, findings)
    return record
