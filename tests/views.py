"""What a method sees of a run, from given states."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from peso.data.dataset import Dataset
from peso.lm.low_rank import LowRank, fresh_low_rank
from worlds import tiny_dataset


@dataclass
class StoredView:
    """A block view over given states."""

    states: list[LowRank]
    fisher: list[Tensor] = field(default_factory=list)
    inputs: dict[str, list[Tensor]] = field(default_factory=dict)
    names: list[tuple[str, ...]] = field(default_factory=lambda: [("layer.lora_A", "layer.lora_B")])
    dataset: Dataset = field(default_factory=tiny_dataset)
    seed: int = 0

    @property
    def block(self) -> int:
        return len(self.states)

    def state_after(self, block: int) -> LowRank:
        return self.states[block]

    def fresh_state(self) -> LowRank:
        return fresh_low_rank(self.states[0], 0)

    def input_grams(self, frozen: Sequence[LowRank]) -> dict[str, Tensor]:
        raise NotImplementedError

    def squared_gradients(self, block: int) -> Sequence[Tensor]:
        assert block == self.block - 1
        return self.fisher

    def watch_inputs(self) -> dict[str, list[Tensor]]:
        return self.inputs

    def group_names(self) -> Sequence[tuple[str, ...]]:
        return self.names
