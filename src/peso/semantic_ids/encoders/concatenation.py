"""Several encoders side by side, each with the same weight."""

from collections.abc import Sequence

import numpy as np

from peso.semantic_ids.encoders.base import Encoder, ItemContents
from peso.semantic_ids.frozen import FrozenState, Vectors


class ConcatenatedEncoder:
    """The parts' vectors, each part scaled by a constant."""

    kind = "concatenation"

    def __init__(self, parts: Sequence[Encoder], scales: Sequence[float]) -> None:
        """Joins frozen encoders.

        Args:
            parts: at least one.
            scales: what each part's vectors are multiplied with.
        """
        self.parts, self._scales = tuple(parts), tuple(scales)

    def encode(self, items: ItemContents) -> Vectors:
        """See `Encoder.encode`."""
        return self.join([part.encode(items) for part in self.parts])

    def join(self, vectors: Sequence[Vectors]) -> Vectors:
        """The vectors of items whose vectors in each part are known.

        Args:
            vectors: float32 [N, D_p] per part.
        """
        scaled = [part * scale for part, scale in zip(vectors, self._scales, strict=True)]
        return np.concatenate(scaled, axis=1).astype(np.float32)

    def state(self) -> FrozenState:
        """See `Encoder.state`; the parts' states are inside."""
        states = [part.state() for part in self.parts]
        tensors = {f"{n}.{name}": tensor for n, state in enumerate(states) for name, tensor in state.tensors.items()}
        facts = {"kind": self.kind, "scales": list(self._scales), "parts": [dict(state.facts) for state in states]}
        return FrozenState(facts, tensors)


def concatenate(parts: Sequence[Encoder], known: Sequence[Vectors]) -> ConcatenatedEncoder:
    """Joins encoders so that the known items vary as much in each part.

    Args:
        parts: frozen encoders.
        known: vectors of the known items in each part, float32 [N, D_p].
    """
    deviations = [float(np.sqrt(vectors.var(axis=0, dtype=np.float64).sum())) for vectors in known]
    return ConcatenatedEncoder(parts, [1 / deviation if deviation > 0 else 1.0 for deviation in deviations])


def states_of_parts(state: FrozenState) -> list[FrozenState]:
    """The parts' states inside a concatenation's."""
    return [
        FrozenState(
            facts,
            {name.split(".", 1)[1]: tensor for name, tensor in state.tensors.items() if name.startswith(f"{number}.")},
        )
        for number, facts in enumerate(state.facts["parts"])
    ]
