"""PESO: one evolving LoRA, anchored to its previous state."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from peso.config import DEFAULT_STRENGTHS, ProximalConfig
from peso.methods.anchor_metrics import METRIC_PULLS
from peso.methods.base import BlockView, ContinualMethod, Part
from peso.methods.penalty import Penalty
from peso.methods.proximal import PROXIMAL_TERMS, by_rank, normalised_term
from peso.methods.pull import Pull
from peso.types import HeldParts

AUTO_MULTIPLES = (0.0, 1 / 3, 1.0, 3.0, 10.0)
"""Candidates of the strength "auto", in default strengths of the form."""


HELD_PARTS: dict[HeldParts, tuple[Part, ...]] = {
    "all": ("lora", "token_rows"),
    "adapter": ("lora",),
    "token_rows": ("token_rows",),
}
"""The parts that each choice pulls."""


class Peso(ContinualMethod):
    """v_t starts at v_{t-1} and stays near it: by a term in the loss (Eq. 12), or by a pull between steps."""

    def __init__(self, config: ProximalConfig) -> None:
        """Chooses the form.

        Args:
            config: form, strength and metric; strength 0 gives `Single` bit for bit, "auto" `candidates`, and where
                there is nothing to choose by the form's default strength.
        """
        assert config.strength is not None, "a checked configuration has a strength"
        self._config, self._form = config, config.form

    @property
    def share(self) -> float | Literal["auto"]:
        """As configured."""
        assert self._config.share is not None, "a checked configuration has a share"
        return self._config.share

    @property
    def lead(self) -> float:
        """As configured."""
        return self._config.lead

    def candidates(self) -> Mapping[float, ContinualMethod]:
        """For "auto", 0 and multiples of the form's default strength."""
        if self._config.strength != "auto":
            return {}
        strengths = [multiple * DEFAULT_STRENGTHS[self._form] for multiple in AUTO_MULTIPLES]
        free = {"strength": 0.0, "share": 1.0}  # the method "single"
        return {one: Peso(self._config.model_copy(update={"strength": one} if one else free)) for one in strengths}

    @property
    def _strength(self) -> float:
        assert self._config.strength is not None, "a checked configuration has a strength"
        return DEFAULT_STRENGTHS[self._form] if self._config.strength == "auto" else self._config.strength

    def penalty(self, anchor: Sequence[Tensor], view: BlockView) -> Penalty | None:
        """Strength times the proximal term between A and B and their previous state, in every form but "decoupled"."""
        if self._strength == 0 or self._form == "decoupled":
            return None
        if self._form == "per_rank":
            names, rank = view.group_names(), view.state_after(view.block - 1).rank
            of_ranks = normalised_term(by_rank(anchor, names, rank), self._strength)
            return Penalty(lambda groups: of_ranks(by_rank(groups, names, rank)))
        return PROXIMAL_TERMS[self._form](anchor, self._strength)

    def pulls(self, anchors: Mapping[Part, Sequence[Tensor]], view: BlockView) -> Mapping[Part, Pull]:
        """The proximal step of the form "decoupled"; it anchors token rows as well as A and B unless told otherwise."""
        if self._strength == 0 or self._form != "decoupled":
            return {}
        pulls = METRIC_PULLS[self._config.metric](anchors, view, self._strength)
        return {part: pull for part, pull in pulls.items() if part in HELD_PARTS[self._config.held]}
