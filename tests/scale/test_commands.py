"""What `peso scale` says where it cannot work."""

import subprocess
import sys

import pytest

from commands import assert_one_sentence, peso
from peso.errors import ConfigError
from peso.scale.cluster import joined_cluster, workers_that_fit

WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from peso.cli.main import main; main()"


@pytest.mark.parametrize("command", ["recommend", "run", "encode", "import movielens nowhere"])
def test_without_ray_it_names_the_extra(command: str) -> None:
    arguments = [sys.executable, "-c", WITHOUT_RAY, "scale", *command.split(), "--workspace", "nowhere"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert_one_sentence(done, "pip install 'peso-rec[scale]'")


def test_one_user_or_all() -> None:
    assert_one_sentence(peso("recommend", "-w", "nowhere"), "--user", "--all")
    assert_one_sentence(peso("recommend", "-w", "nowhere", "--user", "ann", "--all"), "--user", "--all")
    assert_one_sentence(peso("recommend", "-w", "nowhere", "--user", "ann", "-o", "lists"), "--output lists")


def test_as_many_workers_as_there_is_room_for() -> None:
    assert workers_that_fit(None, 2, 7) == 3
    assert workers_that_fit(2, 3, 7) == 2
    with pytest.raises(ConfigError, match="--workers 3 with --cpus 3 each need 9 CPUs, and the Ray cluster has 7"):
        workers_that_fit(3, 3, 7)
    with pytest.raises(ConfigError, match="the Ray cluster has 7"):
        workers_that_fit(None, 8, 7)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_where_no_cluster_listens(address: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; make install brings it")
    with (
        pytest.raises(ConfigError, match=f"--address {address}: no Ray cluster could be joined"),
        joined_cluster(address),
    ):
        pass
