"""What a method sees of a run, from given states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from peso.data.dataset import Dataset
from peso.lm.low_rank import LowRank, fresh_low_rank
from peso.methods.base import Part
from worlds import tiny_dataset


@dataclass
class StoredView:
    """A block view over given states."""

    states: list[LowRank]
    fisher: list[Tensor] = field(default_factory=list)
    fisher_of_rows: list[Tensor] = field(default_factory=list)
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    counts: list[Tensor] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
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

    def input_grams(self, frozen: Sequence[LowRank], blocks: Sequence[int]) -> dict[str, Tensor]:
        raise NotImplementedError

    def squared_gradients(self, block: int, parts: Sequence[Part] = ("lora",)) -> Mapping[Part, Sequence[Tensor]]:
        self.asked.append(block)
        return {part: self.fisher if part == "lora" else self.fisher_of_rows for part in parts}

    def layer_moments(self, block: int) -> Mapping[str, tuple[Tensor, Tensor]]:
        self.asked.append(block)
        return self.moments

    def row_counts(self, block: int) -> Sequence[Tensor]:
        self.asked.append(block)
        return self.counts

    def watch_inputs(self) -> dict[str, list[Tensor]]:
        return self.inputs

    def group_names(self, part: Part = "lora") -> Sequence[tuple[str, ...]]:
        return self.names if part == "lora" else [("embed_tokens.rows", "lm_head.rows")]
