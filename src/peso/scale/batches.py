"""Numbered pieces of work dealt out to a pool of Ray actors, each actor built once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from peso import errors
from peso.errors import PesoError
from peso.scale.cluster import quiet_ray_data

Batch = dict[str, NDArray[Any]]


class Work(Protocol):
    """One kind of piece; every field is sent to the actors."""

    def load(self) -> Any:
        """What an actor keeps between pieces, such as a model."""
        ...

    def do(self, loaded: Any, number: int) -> int:
        """Does a piece, whose result is left where all machines see it; a piece done twice must leave the same.

        Args:
            loaded: what `load` returned.
            number: of the piece.

        Returns:
            How much it was, in the units that the driver counts.
        """
        ...


@dataclass(frozen=True)
class Pool:
    """Actors.

    Attributes:
        num_workers: how many.
        cpus_per_worker: threads of each.
        gpus_per_worker: accelerators of each; 0 or 1.
    """

    num_workers: int
    cpus_per_worker: int = 1
    gpus_per_worker: int = 0


class _Actor:
    def __init__(self, work: Work) -> None:
        self._work: Work = work
        self._loaded: Any = None

    def __call__(self, batch: Batch) -> Batch:
        (number,) = batch["number"].tolist()
        # What the user can mend travels as a row: of an exception, Ray brings the words only.
        try:
            if self._loaded is None:
                self._loaded = self._work.load()
            return batch | {"amount": np.array([self._work.do(self._loaded, number)]), "refused": np.array([""])}
        except PesoError as error:
            return batch | {"amount": np.array([0]), "refused": np.array([f"{type(error).__name__}:{error}"])}


def done_in_pool(work: Work, numbers: Sequence[int], pool: Pool) -> Iterator[int]:
    """Does pieces of work; a lost actor is replaced, and what it was at is done again.

    Args:
        work: the kind of piece.
        numbers: of the pieces, distinct.
        pool: the actors, within the cluster that this process is in.

    Yields:
        Of each piece, as it is done, how much it was.

    Raises:
        PesoError: what `load` or `do` raised in a worker.
    """
    if not numbers:
        return
    import ray.data

    quiet_ray_data()
    pieces = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    done = pieces.map_batches(
        _Actor,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(pool.num_workers, len(numbers))),
        fn_constructor_args=(work,),
        num_cpus=pool.cpus_per_worker,  # Ray sets OMP_NUM_THREADS to it
        num_gpus=pool.gpus_per_worker,
        runtime_env={"env_vars": {"POLARS_MAX_THREADS": str(pool.cpus_per_worker)}},
    )
    for row in done.iter_rows():
        if row["refused"]:
            kind, _, sentence = row["refused"].partition(":")
            raise getattr(errors, kind)(sentence)
        yield int(row["amount"])
