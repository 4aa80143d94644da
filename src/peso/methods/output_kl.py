"""The KL of LoRA outputs: what the adapter adds to each layer, on the step's own inputs, stays what it was.

    strength x sum over layers of O x mean over tokens x of KL(softmax(s B A x) || softmax(s B_prev A_prev x))

with s the adapter's scale and O the layer's output features. It holds the function on the data where the other
penalties hold the matrices: directions that no input of the block has are free, and turning A against B costs nothing.

Source: one of the penalties of PESO's Fig. 2, which leaves open over what the softmax runs, on which inputs, and how
layers are weighed. Chosen here: over a layer's output features; on every token of the step's passes, taken as given
(the gradient reaches a layer's own A and B alone); times O, as in the form "normalised", so that a strength means the
same at every width. A step costs two thin products per layer more than one without, and every layer runs by itself.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from peso.config import OutputKlConfig
from peso.methods.base import BlockView, ContinualMethod
from peso.methods.penalty import Penalty
from peso.methods.proximal import softmax_kl


class OutputKl(ContinualMethod):
    """A single evolving LoRA whose outputs are anchored."""

    def __init__(self, config: OutputKlConfig, scale: float) -> None:
        """Keeps strength and scale.

        Args:
            config: how strong the penalty is.
            scale: s, lora_alpha / r.
        """
        self._strength, self._scale = config.strength, scale

    def penalty(self, anchor: Sequence[Tensor], view: BlockView) -> Penalty | None:
        """Strength times the divergence on the inputs of the passes since the last call."""
        if self._strength == 0:
            return None
        before, inputs = view.state_after(view.block - 1), view.watch_inputs()
        places = {name: (size, row) for size, names in enumerate(view.group_names()) for row, name in enumerate(names)}

        def current(groups: Sequence[Tensor], name: str, like: Tensor) -> Tensor:
            size, row = places[name]
            return groups[size][row].view_as(like)

        def term(groups: Sequence[Tensor]) -> Tensor:
            divergences = []
            for layer, a in before.a.items():
                x_TI, b = torch.cat(inputs[layer]), before.b[layer]
                now_RI, now_OR = current(groups, f"{layer}.lora_A", a), current(groups, f"{layer}.lora_B", b)
                now_TO = self._scale * (x_TI @ now_RI.T) @ now_OR.T
                then_TO = self._scale * (x_TI @ a.to(x_TI).T) @ b.to(x_TI).T
                divergences.append(len(b) * softmax_kl(now_TO, then_TO).mean())
                inputs[layer].clear()
            return self._strength * torch.stack(divergences).sum()

        return Penalty(term)
