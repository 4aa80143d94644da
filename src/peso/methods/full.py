"""Full fine-tuning: every weight of the backbone trains on every block."""

from typing import ClassVar, Literal

from peso.config import FullConfig
from peso.methods.base import ContinualMethod, Trains


class Full(ContinualMethod):
    """A single evolving model; each version is a whole backbone instead of an adapter."""

    trains: ClassVar[Trains] = "all_weights"

    def __init__(self, config: FullConfig) -> None:
        """Keeps the share.

        Args:
            config: how far a version goes.
        """
        self._share = config.share

    @property
    def share(self) -> float | Literal["auto"]:
        """As configured."""
        return self._share
