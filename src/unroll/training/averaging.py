"""Averages of the weights over the steps of a training: the model that is validated and saved.

The optimizer goes on with the weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unroll.training.config import AveragingConfig, EMAConfig, TriggeredConfig


class NoAveraging:
    """The weights themselves.

    Args:
        model: its weights are averaged; a tied matrix counts once.
    """

    def __init__(self, config: AveragingConfig, model: nn.Module) -> None:
        self.model = model
        self.average: list[Tensor] | None = None
        self.count = 0
        """Steps in the average."""
        self.set_aside: dict[nn.Parameter, Tensor] = {}
        """The weights of the training, while the model has the average."""

    def after_step(self) -> None:
        """Add the weights after a step to the average."""

    def after_validation(self, loss: float) -> None:
        """Learn of the loss in nats per token of the weights that ``used`` gives."""

    @contextmanager
    def used(self) -> Iterator[None]:
        """A context in which the model has the average as its weights, if there is one."""
        if self.average is None:
            yield
            return
        parameters = list(self.model.parameters())
        self.set_aside = {weight: weight.detach().clone() for weight in parameters}
        try:
            _copy(parameters, self.average)
            yield
        finally:
            _copy(parameters, list(self.set_aside.values()))
            self.set_aside = {}

    def weights(self) -> dict[str, Tensor]:
        """The state of the model with the weights of the training, whatever the model has now."""
        state: dict[str, Tensor] = self.model.state_dict()
        for name, weight in self.model.named_parameters(remove_duplicate=False):
            state[name] = self.set_aside.get(weight, state[name])
        return state

    def add(self, share: float) -> None:
        """Move the average by ``share`` of its distance to the weights."""
        weights = [weight.detach() for weight in self.model.parameters()]
        self.count += 1
        if self.average is None:
            self.average = [weight.clone() for weight in weights]
        else:
            torch._foreach_lerp_(self.average, weights, share)

    def state_dict(self) -> dict[str, Any]:
        """What has to be restored to continue exactly, after the model's own state."""
        return {"average": self.average, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count, self.average = state["count"], None
        if state["average"] is not None:
            pairs = zip(state["average"], self.model.parameters(), strict=True)
            self.average = [part.to(weight.device) for part, weight in pairs]


class EMA(NoAveraging):
    """Weights w_1..w_t averaged in proportion to decay^(t-i): an exponential moving average with
    its start corrected (Kingma and Ba 2015, section 7.2)."""

    def __init__(self, config: EMAConfig, model: nn.Module) -> None:
        super().__init__(config, model)
        self.decay = config.decay

    def after_step(self) -> None:
        self.add((1 - self.decay) / (1 - self.decay ** (self.count + 1)))


class Triggered(NoAveraging):
    """The mean of the weights from a trigger on: the first validation whose loss is above the
    smallest one of all but the last ``patience`` before it (non-monotonically triggered averaged
    SGD: Merity et al. 2018, algorithm 1)."""

    def __init__(self, config: TriggeredConfig, model: nn.Module) -> None:
        super().__init__(config, model)
        self.patience = config.patience
        self.losses: list[float] = []

    def after_step(self) -> None:
        if self.average is not None:
            self.add(1 / (self.count + 1))

    def after_validation(self, loss: float) -> None:
        earlier = self.losses[: max(0, len(self.losses) - self.patience)]
        if self.average is None and loss > min(earlier, default=loss):
            self.add(1.0)
        self.losses.append(loss)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"losses": self.losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.losses = list(state["losses"])


@torch.no_grad()
def _copy(weights: list[nn.Parameter], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
