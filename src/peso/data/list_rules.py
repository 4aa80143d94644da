"""What a recommended list may name: one choice for every model and rival that is to be compared."""

from dataclasses import dataclass
from typing import Self

from peso.data.dataset import Dataset, IntArray
from peso.data.examples import catalogue_items, has_repeats, items_taken_before
from peso.types import CatalogueName, RepeatsName


@dataclass(frozen=True)
class ListRules:
    """What a list may name.

    Attributes:
        catalogue: which items, whoever the user is.
        excludes_history: whether items that the user already took are left out.
    """

    catalogue: CatalogueName
    excludes_history: bool

    @classmethod
    def choose(cls, dataset: Dataset, catalogue: CatalogueName, repeats: RepeatsName) -> Self:
        """Settles `repeats = "auto"`: the history is left out if nobody took an item twice in block 0."""
        return cls(catalogue, repeats == "excluded" or (repeats == "auto" and not has_repeats(dataset)))

    @property
    def name(self) -> str:
        """Such as "known, repeats allowed"; lists of equal name can be compared."""
        return f"{self.catalogue}, repeats {'excluded' if self.excludes_history else 'allowed'}"

    def allowed(self, dataset: Dataset, block: int) -> IntArray:
        """int64, ascending: the items that a list for a target of `block` may name."""
        return catalogue_items(dataset, self.catalogue, block)

    def excluded(self, dataset: Dataset, targets: IntArray) -> list[IntArray]:
        """Per target event, the items that its list leaves out."""
        if self.excludes_history:
            return items_taken_before(dataset, targets)
        return [dataset.event_item[:0]] * len(targets)
