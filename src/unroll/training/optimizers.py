"""Optimizers, and schedules of the learning rate, by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from unroll.errors import require
from unroll.training.config import (
    AdamConfig,
    AdaptiveConfig,
    ConstantConfig,
    CosineConfig,
    PlateauConfig,
    SGDConfig,
    StepConfig,
)
from unroll.training.gradients import entry_of_each

Made = TypeVar("Made", bound=Optimizer)

SPEAK_TO_COMPILER = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")
"""Methods of PyTorch's optimizers that tell its compiler to leave them alone."""


def eager(kind: type[Made]) -> type[Made]:
    """An optimizer class whose methods do not import PyTorch's compiler.

    The compiler only learns that it should not compile them, and importing it takes as long as
    importing the rest of PyTorch.
    """
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in SPEAK_TO_COMPILER}
    plain["step"] = torch.no_grad()(plain["step"])
    return cast("type[Made]", type(kind.__name__, (kind,), plain))


EagerAdam, EagerAdamW, EagerSGD = eager(Adam), eager(AdamW), eager(SGD)


def adam(config: AdamConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    kind = TouchedAdam if config.row_sparse else EagerAdam
    return kind(parameters, **_adaptive(config))


def adamw(config: AdaptiveConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return EagerAdamW(parameters, **_adaptive(config))


def sgd(config: SGDConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return EagerSGD(
        parameters,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=not config.row_sparse,  # fused kernels take no sparse gradient
    )


def _adaptive(config: AdaptiveConfig) -> dict[str, Any]:
    return {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "weight_decay": config.weight_decay,
        "fused": True,  # one kernel for all parameters, instead of several for each
    }


class TouchedAdam(EagerAdam):  # type: ignore[misc, valid-type]
    """Adam that moves only the rows of a sparse gradient: the averages of the other rows do not
    age, and they stay where they are. It takes the steps of ``torch.optim.SparseAdam`` for a sparse
    gradient and Adam's for a dense one. SparseAdam waits for the device, and takes no others."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._step_rows(parameter, group)
                    parameter.grad = None
        return super().step(closure)

    def _step_rows(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        """Algorithm 1 of Kingma and Ba for the rows of a merged gradient. An id that occurs twice
        writes the same numbers twice."""
        assert parameter.grad is not None
        ids, sums = parameter.grad._indices()[0], parameter.grad._values()
        gradient = sums[entry_of_each(ids, len(parameter))]
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"][ids].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"][ids].lerp_(gradient.square(), 1 - beta2)
        state["exp_avg"][ids], state["exp_avg_sq"][ids] = mean, square
        share1, share2 = (_one_minus_power(beta, state["step"]) for beta in (beta1, beta2))
        rate = group["lr"] * share2.sqrt() / share1
        parameter[ids] -= rate * mean / (square.sqrt() + group["eps"])


def _one_minus_power(beta: float, step: Tensor) -> Tensor:
    """1 - beta^step, to the last digits of float32."""
    return -torch.expm1(step * math.log(max(beta, 1e-300)))


class Schedule(Protocol):
    """Changes the learning rate of an optimizer."""

    def after_step(self) -> None: ...

    def after_epoch(self) -> None: ...

    def after_validation(self, loss: float) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What has to be restored to continue exactly, after the optimizer's own state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Constant:
    """Changes nothing."""

    def __init__(
        self, config: ConstantConfig, optimizer: Optimizer, total_steps: int | None
    ) -> None:
        pass

    def after_step(self) -> None:
        pass

    def after_epoch(self) -> None:
        pass

    def after_validation(self, loss: float) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Cosine(Constant):
    """Linear warm-up, then half a cosine down (Loshchilov and Hutter 2017, without restarts).

    Raises:
        Refused: the number of steps is not known in advance.
    """

    def __init__(self, config: CosineConfig, optimizer: Optimizer, total_steps: int | None) -> None:
        require(
            total_steps is not None,
            "optimizer/schedule=cosine needs a known number of steps: set training.epochs or "
            "training.max_steps",
        )
        assert total_steps is not None
        self.config, self.optimizer, self.total_steps = config, optimizer, total_steps
        self.peaks: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.steps = 0
        self._set_rates()

    def share(self, step: int) -> float:
        """The learning rate before step ``step`` (from 0), as a fraction of the configured one."""
        config = self.config
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        span = max(1, self.total_steps - config.warmup_steps)
        done = min(1.0, (step - config.warmup_steps) / span)
        fall = 0.5 * (1 + math.cos(math.pi * done))
        return config.final_fraction + (1 - config.final_fraction) * fall

    def after_step(self) -> None:
        self.steps += 1
        self._set_rates()

    def _set_rates(self) -> None:
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * self.share(self.steps)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        self._set_rates()  # the end may be later than it was


class Step(Constant):
    """Multiply by ``factor`` every ``every`` epochs."""

    def __init__(self, config: StepConfig, optimizer: Optimizer, total_steps: int | None) -> None:
        self.config, self.optimizer, self.epochs = config, optimizer, 0

    def after_epoch(self) -> None:
        self.epochs += 1
        if self.epochs % self.config.every == 0:
            _multiply_rates(self.optimizer, self.config.factor)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epochs = state["epochs"]


class Plateau(Constant):
    """Divide by ``divisor`` after ``patience`` validations in a row without a better one."""

    def __init__(
        self, config: PlateauConfig, optimizer: Optimizer, total_steps: int | None
    ) -> None:
        self.config, self.optimizer = config, optimizer
        self.best, self.waited = math.inf, 0

    def after_validation(self, loss: float) -> None:
        self.waited = 0 if loss < self.best else self.waited + 1
        self.best = min(self.best, loss)
        if self.waited == self.config.patience:
            self.waited = 0
            _multiply_rates(self.optimizer, 1 / self.config.divisor)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


@contextmanager
def scaled_rates(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """A context in which every learning rate is ``factor`` times what it is."""
    rates = [group["lr"] for group in optimizer.param_groups]
    _multiply_rates(optimizer, factor)
    yield
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _multiply_rates(optimizer: Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= factor
