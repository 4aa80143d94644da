"""A run's id: what decides its outcome, and nothing else."""

from typing import Any

import pytest

from peso.config import SECTION_OF_METHOD
from peso.semantic_ids.catalogue import build_semantic_ids
from peso.training.materials import Materials
from peso.types import MethodName
from streams import config
from worlds import LEVEL_SIZES, tiny_codes, tiny_dataset


def run_id(**overrides: Any) -> str:
    dataset = tiny_dataset()
    return Materials(dataset, build_semantic_ids(dataset, tiny_codes(), LEVEL_SIZES), config(**overrides)).run_id


@pytest.mark.parametrize("method", ["single", "frozen", "full", "peso"])
def test_what_a_method_does_not_read_names_no_other_run(method: MethodName) -> None:
    changed = {"proximal": {"lead": 0.9}, "full": {"share": "auto"}, "ewc": {"strength": 7.0}}
    for section, values in changed.items():
        is_read = SECTION_OF_METHOD.get(method) == section
        assert (run_id(method=method) != run_id(method=method, **{section: values})) == is_read


def test_what_every_method_reads_does() -> None:
    ids = {
        run_id(method="single", **more) for more in ({}, {"seed": 1}, {"max_history": 5}, {"memory": {"use": False}})
    }
    assert len(ids) == 4
