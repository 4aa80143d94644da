"""AdamW over flat parameters with a warm-up and cosine schedule, and a state that survives a kill."""

import math
from collections.abc import Collection

import torch
from torch import Tensor

from peso.lm.parameters import FlatParameters


class FlatOptimizer:
    """One AdamW step per flat buffer; its whole state is a dictionary of tensors."""

    def __init__(
        self,
        parts: dict[str, FlatParameters],
        learning_rates: dict[str, float],
        weight_decay: float,
        num_steps: int,
        warmup_fraction: float,
        undecayed: Collection[str] = (),
    ) -> None:
        """Prepares the optimizer.

        Args:
            parts: flat parameters by name.
            learning_rates: peak rate of each part.
            weight_decay: decoupled decay.
            num_steps: steps of the whole schedule.
            warmup_fraction: share of them with a linearly rising rate.
            undecayed: parts without decay.
        """
        self.parts = parts
        self._peaks = learning_rates
        self._num_steps = num_steps
        self._num_warmup = max(1, round(warmup_fraction * num_steps))
        self._adamw = torch.optim.AdamW(
            [
                {
                    "params": [part.data],
                    "lr": learning_rates[name],
                    "weight_decay": 0.0 if name in undecayed else weight_decay,
                }
                for name, part in parts.items()
            ],
            fused=True,
        )
        self.step_number = 0

    def rates(self) -> dict[str, float]:
        """The learning rate of each part at the next step: linear warm-up, then a cosine to zero."""
        step = self.step_number
        if step < self._num_warmup:
            share = (step + 1) / self._num_warmup
        else:
            progress = (step - self._num_warmup) / max(1, self._num_steps - self._num_warmup)
            share = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return {name: peak * share for name, peak in self._peaks.items()}

    def zero_gradients(self) -> None:
        """Sets every gradient to zero, in place (the modules' views stay valid)."""
        for part in self.parts.values():
            part.gradient.zero_()

    def gradient_norm(self) -> Tensor:
        """The L2 norm over all parts, a scalar."""
        return torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(part.gradient) for part in self.parts.values()])
        )

    def step(self) -> None:
        """One AdamW step at the scheduled rates."""
        for group, rate in zip(self._adamw.param_groups, self.rates().values(), strict=True):
            group["lr"] = rate
        self._adamw.step()
        self.step_number += 1

    def state(self) -> dict[str, Tensor]:
        """Values, moments and step count, as tensors that can be saved."""
        tensors = {"step": torch.tensor(self.step_number)}
        for name, part in self.parts.items():
            tensors[f"{name}.values"] = part.snapshot()
            moments = self._adamw.state.get(part.data, {})
            if moments:
                tensors[f"{name}.first_moment"] = moments["exp_avg"].clone()
                tensors[f"{name}.second_moment"] = moments["exp_avg_sq"].clone()
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `state` returned; the next step is the one an uninterrupted run would take."""
        self.step_number = int(tensors["step"])
        for name, part in self.parts.items():
            part.restore(tensors[f"{name}.values"])
            if f"{name}.first_moment" in tensors:
                self._adamw.state[part.data] = {
                    "step": torch.tensor(float(self.step_number), device=part.data.device),
                    "exp_avg": tensors[f"{name}.first_moment"].to(part.data.device, copy=True),
                    "exp_avg_sq": tensors[f"{name}.second_moment"].to(part.data.device, copy=True),
                }
