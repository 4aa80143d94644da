"""The model of block 0, never updated (the paper's "Pretrain")."""

from typing import ClassVar

from peso.methods.base import ContinualMethod, Trains


class Frozen(ContinualMethod):
    """Recommends from block 0's state for ever: what an update must beat to be worth its cost."""

    trains: ClassVar[Trains] = "nothing"
