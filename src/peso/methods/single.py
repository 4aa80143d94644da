"""Single evolving LoRA: one adapter, trained on block after block, nothing holding it back."""

from peso.methods.base import ContinualMethod


class Single(ContinualMethod):
    """v_t starts at v_{t-1} and minimises the cross-entropy of block t alone: PESO with strength 0."""
