"""The contract of a continual method: what happens at the moments of a block that methods differ in.

A method owns no model and mutates nothing. It sees the LoRA matrices that train as `groups`: a sequence of [G, N]
tensors, one per matrix size, each row one flattened A or B; the token rows likewise, one row per table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from peso.data.dataset import Dataset, IntArray
from peso.data.examples import targets_of_block
from peso.lm.low_rank import LowRank
from peso.methods.penalty import Penalty
from peso.methods.pull import Pull

Part = Literal["lora", "token_rows"]
"""What an anchor holds: A and B, and the rows of embedding and head that train beside them."""

Trains = Literal["nothing", "adapter", "b_only", "all_weights"]
"""What an update changes: nothing, A, B and token rows, all of these but A, or every weight of the backbone."""


class BlockView(Protocol):
    """What a method may look at before a block is trained."""

    @property
    def dataset(self) -> Dataset:
        """The events; a method must not look beyond `block`."""

    @property
    def block(self) -> int:
        """The block about to be trained on, at least 1."""

    @property
    def seed(self) -> int:
        """The run's seed."""

    def state_after(self, block: int) -> LowRank:
        """The A and B that trained on a block (0 is v_0)."""

    def fresh_state(self) -> LowRank:
        """An adapter that adds nothing yet: A random, B zero."""

    def input_grams(self, frozen: Sequence[LowRank], blocks: Sequence[int]) -> dict[str, Tensor]:
        """Mean x x^T of each adapted layer's inputs over blocks' training targets, float32 [I, I].

        Args:
            frozen: past adapters that are under the backbone while it reads them.
            blocks: earlier ones, or the one about to be trained on.
        """

    def squared_gradients(self, block: int, parts: Sequence[Part] = ("lora",)) -> Mapping[Part, Sequence[Tensor]]:
        """Mean squared gradient over users of a block, at the state that training starts from.

        Laid out like the parts' groups; the diagonal of the empirical Fisher matrix.

        Args:
            block: an earlier one, or the one about to be trained on; its training targets are looked at.
            parts: what to differentiate in.
        """

    def layer_moments(self, block: int) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Mean x x^T and mean g g^T of each adapted layer, at the state that training starts from.

        x is what the layer reads and g the gradient of the loss of a block's training targets with respect to what it
        gives, both per token; float32 [I, I] and [O, O], by the names of `LowRank`.
        """

    def row_counts(self, block: int) -> Sequence[Tensor]:
        """How often each token row's code stands among a block's training targets.

        Laid out like the token rows' groups, a number per row: float32 [G, R].
        """

    def watch_inputs(self) -> dict[str, list[Tensor]]:
        """Starts to keep the inputs of each adapted layer in every pass of training, float32 [tokens, I] per pass.

        Whoever reads a layer's list clears it. Tokens that only fill rows are left out; no gradient flows back.

        Raises:
            ConfigError: several processes share the passes.
        """

    def group_names(self, part: Part = "lora") -> Sequence[tuple[str, ...]]:
        """Names of a part's groups, such as `layers.0.self_attn.q_proj.lora_A`, laid out like them."""


@dataclass(frozen=True, eq=False)
class Leg:
    """One training run within a block; most methods have one.

    Attributes:
        current: A and B that training starts from.
        targets: int64, event indices of the targets to train on, ascending.
        frozen: past adapters that act under the current one without training.
        learns_magnitudes: whether each past adapter and the current one has a magnitude that trains.
        token_rows_after: the block whose token rows training starts from.
    """

    current: LowRank
    targets: IntArray
    frozen: tuple[LowRank, ...] = ()
    learns_magnitudes: bool = False
    token_rows_after: int = 0


class ContinualMethod:
    """One way to carry an adapter from block to block; the defaults are those of a single evolving LoRA.

    Every block t >= 1 runs its `legs`: steps on cross-entropy + `penalty`, with its `pulls` after every eighth step and
    the last of an epoch. The anchor of both is where a leg starts. Block 0 is the same for every method.
    """

    trains: ClassVar[Trains] = "adapter"
    """What later blocks change."""

    @property
    def share(self) -> float | Literal["auto"]:
        """How much of the way from where a leg starts to where its training ends a version goes; 1 is all of it."""
        return 1.0

    @property
    def lead(self) -> float:
        """How much of the rest of that way the version that recommends goes beyond what the next block starts from."""
        return 0.0

    def candidates(self) -> Mapping[float, "ContinualMethod"]:
        """The same method with every strength that the block may choose from, 0 among them; empty if it has its own.

        A block without validation targets to choose by is trained by the method as it is.
        """
        return {}

    def legs(self, view: BlockView) -> Sequence[Leg]:
        """What to train on this block, in order; the block's adapter is the mean of what the legs add.

        The default goes on from the previous adapter with `examples`.
        """
        before = view.block - 1
        targets = self.examples(view.dataset, view.block, view.seed)
        return [Leg(view.state_after(before), targets, token_rows_after=before)]

    def examples(self, dataset: Dataset, block: int, seed: int) -> IntArray:
        """Event indices of the targets to train on: the block's own training targets unless a method adds some."""
        return targets_of_block(dataset, block, "train")

    def penalty(self, anchor: Sequence[Tensor], view: BlockView) -> Penalty | None:
        """What is added to the cross-entropy of one block; called once per leg, before its first step.

        Args:
            anchor: the LoRA matrices that training starts from; they do not change during the block.
            view: the past.

        Returns:
            A scalar of the current matrices, laid out alike; None when there is nothing to add.
        """
        return None

    def pulls(self, anchors: Mapping[Part, Sequence[Tensor]], view: BlockView) -> Mapping[Part, Pull]:
        """What moves parameters between optimizer steps; called once per leg, before its first step.

        Args:
            anchors: each part's groups that training starts from; they do not change during the block.
            view: the past, and the block's own training targets.

        Returns:
            For every part that is to be moved: from the current groups, laid out alike, and the sum of the learning
            rates of the steps since the pull before to their new values, in place.
        """
        return {}
