"""Full fine-tuning: every weight of the backbone trains on every block."""

from typing import ClassVar

from peso.methods.base import ContinualMethod, Trains


class Full(ContinualMethod):
    """A single evolving model; each version is a whole backbone instead of an adapter."""

    trains: ClassVar[Trains] = "all_weights"
