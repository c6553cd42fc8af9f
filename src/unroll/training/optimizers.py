"""Optimizers, and schedules of the learning rate, by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from unroll.errors import require
from unroll.training.config import (
    AdaptiveConfig,
    ConstantConfig,
    CosineConfig,
    PlateauConfig,
    SGDConfig,
    StepConfig,
)


def adam(config: AdaptiveConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return Adam(parameters, **_adaptive(config))


def adamw(config: AdaptiveConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return AdamW(parameters, **_adaptive(config))


def sgd(config: SGDConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return SGD(
        parameters,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _adaptive(config: AdaptiveConfig) -> dict[str, Any]:
    return {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "weight_decay": config.weight_decay,
        "fused": True,  # one kernel for all parameters, instead of several for each
    }


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


class _Scheduled(Constant):
    """The base of schedules that one of PyTorch's schedulers computes."""

    _scheduler: Any  # ReduceLROnPlateau has a step of its own signature

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self._scheduler.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._scheduler.load_state_dict(dict(state))


class Cosine(_Scheduled):
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
        self._scheduler = LambdaLR(optimizer, lambda step: self.share(step, total_steps, config))

    @staticmethod
    def share(step: int, total_steps: int, config: CosineConfig) -> float:
        """The learning rate before step ``step`` (from 0), as a share of the configured one."""
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        span = max(1, total_steps - config.warmup_steps)
        done = min(1.0, (step - config.warmup_steps) / span)
        fall = 0.5 * (1 + math.cos(math.pi * done))
        return config.final_fraction + (1 - config.final_fraction) * fall

    def after_step(self) -> None:
        self._scheduler.step()


class Step(_Scheduled):
    """Multiply by ``factor`` every ``every`` epochs."""

    def __init__(self, config: StepConfig, optimizer: Optimizer, total_steps: int | None) -> None:
        self._scheduler = StepLR(optimizer, config.every, config.factor)

    def after_epoch(self) -> None:
        self._scheduler.step()


class Plateau(_Scheduled):
    """Divide by ``divisor`` after ``patience`` validations in a row without a better one."""

    def __init__(
        self, config: PlateauConfig, optimizer: Optimizer, total_steps: int | None
    ) -> None:
        self._scheduler = ReduceLROnPlateau(
            optimizer,
            factor=1 / config.divisor,
            patience=config.patience - 1,
            threshold=0.0,
            eps=0.0,
        )

    def after_validation(self, loss: float) -> None:
        self._scheduler.step(loss)
