"""An optimizer's steps and the pull between them.

The pull has a closed form at every rate, and a step's rate is so small that one pull at the sum of eight steps' rates
is eight pulls up to its square (some hundred-thousandths of the way): it is applied after every eighth step, at an
eighth of the cost, and after the last step of an epoch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from peso.training.optimisation import FlatOptimizer

Pull = Callable[[dict[str, float]], None]
"""Moves the parameters after optimizer steps, given the sum of each part's learning rates at them."""

STEPS_PER_PULL = 8
PULLS_PER_LOG = 4
"""The pull's share is measured at every fourth pull: doing so takes as long as the pull."""


class PulledSteps:
    """Steps of one optimizer within one epoch."""

    def __init__(self, optimizer: FlatOptimizer, pull: Pull) -> None:
        """Starts with nothing to pull.

        Args:
            optimizer: over all parts.
            pull: moves them.
        """
        self._optimizer, self._pull = optimizer, pull
        self._rates = dict.fromkeys(optimizer.parts, 0.0)
        self._num_steps = self._num_pulls = 0
        self._before: list[Tensor] = []

    def step(self, is_last: bool = False) -> Tensor | None:
        """One step, and a pull if it is time.

        Args:
            is_last: whether the epoch ends; the pull is then made in any case.

        Returns:
            The length of the pull's move relative to that of the steps since the pull before; None where it is not
            measured.
        """
        is_logged = self._num_pulls % PULLS_PER_LOG == 0
        if is_logged and self._num_steps == 0:
            self._before = self._snapshot()
        for name, rate in self._optimizer.rates().items():
            self._rates[name] += rate
        self._optimizer.step()
        self._num_steps += 1
        if self._num_steps < STEPS_PER_PULL and not is_last:
            return None
        between = self._snapshot() if is_logged else []
        self._pull(self._rates)
        ratio = None
        if is_logged:
            stepped, pulled = _length(between, self._before), _length(self._snapshot(), between)
            ratio = pulled / (stepped + 1e-30)
        self._rates = dict.fromkeys(self._rates, 0.0)
        self._num_steps, self._num_pulls = 0, self._num_pulls + 1
        return ratio

    def _snapshot(self) -> list[Tensor]:
        return [part.snapshot() for part in self._optimizer.parts.values()]


def _length(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.dist(*pair) for pair in zip(ours, theirs, strict=True)]))
