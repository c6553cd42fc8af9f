"""Optimizers, and schedules of the learning rate, by name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

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
        "fused": True,  # one pass over the parameters instead of a dozen
    }


class Schedule(Protocol):
    """Moves the learning rate of an optimizer."""

    def after_step(self) -> None: ...

    def after_epoch(self) -> None: ...

    def after_validation(self, loss: float) -> None: ...


class Constant:
    """Moves nothing; what the others move, they override."""

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


class Cosine(Constant):
    """Linear warm-up, then half a cosine down (Loshchilov and Hutter 2017, without restarts).

    Raises:
        Refused: the number of steps is not known beforehand.
    """

    def __init__(self, config: CosineConfig, optimizer: Optimizer, total_steps: int | None) -> None:
        require(
            total_steps is not None,
            "optimizer/schedule=cosine must know where it ends: set training.epochs or "
            "training.max_steps",
        )
        assert total_steps is not None
        self._scheduler: LRScheduler = LambdaLR(
            optimizer, lambda step: self.share(step, total_steps, config)
        )

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


class Step(Constant):
    """Multiply by ``factor`` every ``every`` epochs."""

    def __init__(self, config: StepConfig, optimizer: Optimizer, total_steps: int | None) -> None:
        self._scheduler: LRScheduler = torch.optim.lr_scheduler.StepLR(
            optimizer, config.every, config.factor
        )

    def after_epoch(self) -> None:
        self._scheduler.step()


class Plateau(Constant):
    """Divide when validation stops improving."""

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
