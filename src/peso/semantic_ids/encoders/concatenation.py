"""Several encoders side by side, each with the same weight."""

from collections.abc import Sequence

import numpy as np

from peso.data.dataset import IntArray
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
        vectors = [part.encode(items) * scale for part, scale in zip(self.parts, self._scales, strict=True)]
        return np.concatenate(vectors, axis=1).astype(np.float32)

    def state(self) -> FrozenState:
        """See `Encoder.state`; the parts' states are inside."""
        states = [part.state() for part in self.parts]
        tensors = {f"{n}.{name}": tensor for n, state in enumerate(states) for name, tensor in state.tensors.items()}
        facts = {"kind": self.kind, "scales": list(self._scales), "parts": [dict(state.facts) for state in states]}
        return FrozenState(facts, tensors)


def concatenate(parts: Sequence[Encoder], items: ItemContents, fit_on: IntArray) -> ConcatenatedEncoder:
    """Joins encoders so that the known items vary as much in each part.

    Args:
        parts: frozen encoders.
        items: all items.
        fit_on: numbers of the known items, int64.
    """
    known = ItemContents([items.ids[item] for item in fit_on.tolist()], [items.texts[item] for item in fit_on.tolist()])
    deviations = [float(np.sqrt(part.encode(known).var(axis=0, dtype=np.float64).sum())) for part in parts]
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
