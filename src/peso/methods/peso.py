"""PESO: one evolving LoRA with a proximal term that anchors it to its previous state."""

from collections.abc import Sequence

from torch import Tensor

from peso.config import ProximalConfig
from peso.methods.base import ContinualMethod, Penalty
from peso.methods.proximal import PROXIMAL_TERMS


class Peso(ContinualMethod):
    """v_t starts at v_{t-1} and minimises cross-entropy + strength x proximal term (Eq. 12)."""

    def __init__(self, config: ProximalConfig) -> None:
        """Chooses the term.

        Args:
            config: scaling and strength; strength 0 gives `Single` bit for bit.
        """
        self._term = PROXIMAL_TERMS[config.scaling]
        self._strength = config.strength

    def penalty(self, anchor: Sequence[Tensor]) -> Penalty | None:
        """Strength times the proximal term between the adapter and its previous state."""
        if self._strength == 0:
            return None
        term = self._term(anchor)
        return lambda groups: self._strength * term(groups)
