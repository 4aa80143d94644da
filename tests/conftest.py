"""Fixtures that several rooms share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
LONGEST_FIRST = ("scale", "training", "studies", "cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that processes which share the files end at about the same time."""
    items.sort(key=lambda item: item.path.parent.name not in LONGEST_FIRST)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("PESO_SHARED_DATA", REPOSITORY / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set PESO_SHARED_DATA to test on them")
    return folder
