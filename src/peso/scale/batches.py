"""Numbered pieces of work dealt out to a pool of Ray actors, each actor built once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from peso.scale.cluster import quiet_ray_data

Batch = dict[str, NDArray[np.int64]]


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
        if self._loaded is None:  # not in __init__: Ray would tell of an error there in words only
            self._loaded = self._work.load()
        amounts = [self._work.do(self._loaded, number) for number in batch["number"].tolist()]
        return batch | {"amount": np.array(amounts)}


def done_in_pool(work: Work, numbers: Sequence[int], pool: Pool) -> Iterator[int]:
    """Does pieces of work; a lost actor is replaced, and what it was at is done again.

    Args:
        work: the kind of piece.
        numbers: of the pieces, distinct.
        pool: the actors, within the cluster that this process is in.

    Yields:
        Of each piece, as it is done, how much it was.
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
    )
    for row in done.iter_rows():
        yield int(row["amount"])
