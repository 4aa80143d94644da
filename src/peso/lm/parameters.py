"""Trainable parameters laid out in one buffer, groups of equal shape side by side.

A view [G, n] of all groups of one shape costs nothing, so the proximal term runs once per shape instead of once per
matrix, the optimizer steps over one tensor, and a checkpoint is one tensor.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Stack:
    """Groups of one shape: rows `names` of the view `buffer[start : start + len(names) * size]`."""

    names: tuple[str, ...]
    start: int
    size: int

    def of(self, buffer: Tensor) -> Tensor:
        """The groups as rows of a view [G, n] of a flat buffer with this layout."""
        return buffer[self.start : self.start + len(self.names) * self.size].view(len(self.names), self.size)


class FlatParameters:
    """Moves parameters into one flat buffer; the modules keep views of it and of its gradient."""

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Re-seats every parameter's data and gradient as views.

        Args:
            named_parameters: the parameters, float32; names are kept for logs and checkpoints.
        """
        ordered = sorted(named_parameters, key=lambda entry: (entry[1].numel(), entry[0]))
        assert ordered, "nothing to train"
        assert all(parameter.dtype == torch.float32 for _, parameter in ordered), "trainable parameters are float32"
        total = sum(parameter.numel() for _, parameter in ordered)
        device = ordered[0][1].device
        self.data = nn.Parameter(torch.empty(total, device=device))
        self.data.grad = torch.zeros(total, device=device)
        stacks: list[Stack] = []
        offset = 0
        for name, parameter in ordered:
            size = parameter.numel()
            view = self.data.detach()[offset : offset + size].view_as(parameter)
            view.copy_(parameter.detach())
            parameter.data = view
            parameter.grad = self.data.grad[offset : offset + size].view_as(parameter)
            if stacks and stacks[-1].size == size:
                stacks[-1] = Stack((*stacks[-1].names, name), stacks[-1].start, size)
            else:
                stacks.append(Stack((name,), offset, size))
            offset += size
        self.stacks = tuple(stacks)

    @property
    def gradient(self) -> Tensor:
        """The flat gradient, float32 [P]."""
        assert self.data.grad is not None
        return self.data.grad

    def groups(self, buffer: Tensor) -> list[Tensor]:
        """The groups of a flat buffer with this layout, one [G, n] view per size.

        They are views of one split, so a gradient with respect to all of them is written in one pass.
        """
        pieces = buffer.split([len(stack.names) * stack.size for stack in self.stacks])
        return [piece.view(-1, stack.size) for piece, stack in zip(pieces, self.stacks, strict=True)]

    def snapshot(self) -> Tensor:
        """A copy of the current values, float32 [P]."""
        return self.data.detach().clone()

    def restore(self, values: Tensor) -> None:
        """Overwrites the current values (all views follow)."""
        with torch.no_grad():
            self.data.copy_(values)
