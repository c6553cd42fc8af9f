"""Config of training: bounds, treatment of the gradient, optimizer and schedule."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass
from typing import ClassVar

from unroll.errors import register_hint, require, require_one_of, require_share
from unroll.registry import register, register_schema

EMBEDDING_ROWS = ("all", "touched")


@dataclass(frozen=True)
class TruncationConfig:
    name: str


register_hint(
    "training/truncation",
    r"\d+",
    "training.truncation={option}: a number alone is ambiguous; write training.truncation=fixed "
    "training.truncation.steps={option}, or data.batching.length={option} for batches of that many "
    "steps",
)


@register("training/truncation", "full", builds="unroll.training.truncation:Full")
@dataclass(frozen=True)
class FullConfig(TruncationConfig):
    """Back through the whole sequence of a batch."""


@register("training/truncation", "fixed", builds="unroll.training.truncation:Fixed")
@dataclass(frozen=True)
class FixedConfig(TruncationConfig):
    """Cut every `steps` steps (Williams and Peng 1990)."""

    steps: int

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"training.truncation.steps={self.steps}: must be at least 1")


@register("training/truncation", "random", builds="unroll.training.truncation:Random")
@dataclass(frozen=True)
class RandomConfig(TruncationConfig):
    """Cut at random places; the expectation is the full gradient (Tallec and Ollivier 2017)."""

    every: int
    """Steps between two places where the gradient may be cut."""
    keep: float
    """Probability that it is not cut at such a place."""

    def __post_init__(self) -> None:
        require(self.every >= 1, f"training.truncation.every={self.every}: must be at least 1")
        require(
            0 < self.keep <= 1,
            f"training.truncation.keep={self.keep}: must be a probability above 0 and at most 1",
        )


@dataclass(frozen=True)
class AveragingConfig:
    name: str
    needs_validation: ClassVar[bool] = False


@register("training/averaging", "none", builds="unroll.training.averaging:NoAveraging")
@dataclass(frozen=True)
class NoAveragingConfig(AveragingConfig):
    """The weights themselves."""


@register("training/averaging", "ema", builds="unroll.training.averaging:EMA")
@dataclass(frozen=True)
class EMAConfig(AveragingConfig):
    """An exponential moving average of the weights (Kingma and Ba 2015)."""

    decay: float
    """Factor of a step's share with every later step."""

    def __post_init__(self) -> None:
        require_share("training.averaging.decay", self.decay)


@register("training/averaging", "triggered", builds="unroll.training.averaging:Triggered")
@dataclass(frozen=True)
class TriggeredConfig(AveragingConfig):
    """The mean of the weights since validation stopped improving (Merity et al. 2018)."""

    needs_validation: ClassVar[bool] = True
    patience: int
    """Validations before the current one that are not compared with it."""

    def __post_init__(self) -> None:
        require(
            self.patience >= 1, f"training.averaging.patience={self.patience}: must be at least 1"
        )


@dataclass(frozen=True)
class TrainingConfig:
    epochs: int | None
    max_steps: int | None
    max_minutes: float | None
    """Training ends at the first of the three bounds; null: no bound."""
    clip_norm: float | None
    """Upper bound on the gradient's norm over all parameters (Pascanu et al. 2013)."""
    dropout: float
    """Dropout of the model, wherever the model does not set its own."""
    dropout_mask: str
    """How dropout is drawn, wherever the model does not set its own."""
    weight_dropout: float
    """Dropout of the recurrent matrices, wherever the model does not set its own."""
    word_dropout: float
    """Dropout of whole tokens, wherever the model does not set its own."""
    activation_regularization: float
    """Weight of the mean square of the last layer's outputs, after dropout, in the loss that is
    minimised (Merity et al. 2017); the loss that is reported is without it. 0: none."""
    temporal_activation_regularization: float
    """The same for the change of these outputs from step to step, before dropout."""
    truncation: TruncationConfig
    """How far back-propagation through time goes within the sequences of a batch. A state that is
    carried to the next batch is detached."""
    averaging: AveragingConfig
    """Average of the weights over steps, with which the model is validated, saved and tested."""
    accumulation: int
    """Batches whose gradients are averaged into one optimizer step."""
    compile: bool
    """Train through torch.compile, which takes minutes before the first step and needs a C++
    compiler. For model.implementation=library, whose steps are kernels already, it is slower on a
    processor."""
    validate_every: int | None
    """Optimizer steps between two validations; null: after every epoch."""
    patience: int | None
    """Stop after this many validations in a row without a better one; null: never."""
    min_gain: float
    """Share by which the validation perplexity has to fall to count as better for `patience`. The
    best checkpoint is the best one either way."""
    non_finite: str
    """What a step does whose loss or gradient is NaN or infinite. stop: the run fails; skip: it
    moves no weight, is counted, and the training goes on (every step then waits for a device)."""
    checkpoint_every: int | None
    """Optimizer steps between two saved states, from which `resume` goes on; null: not by steps."""
    checkpoint_minutes: float | None
    """Minutes between two saved states; null: not by time. The last state is always saved."""
    checkpoints_kept: int
    """States that are kept: the newest ones."""

    def __post_init__(self) -> None:
        require(
            any(bound is not None for bound in (self.epochs, self.max_steps, self.max_minutes)),
            "training has no end: set one of training.epochs, training.max_steps, "
            "training.max_minutes",
        )
        for key in (
            "epochs",
            "max_steps",
            "accumulation",
            "validate_every",
            "checkpoint_every",
            "checkpoints_kept",
        ):
            value = getattr(self, key)
            require(value is None or value >= 1, f"training.{key}={value}: must be at least 1")
        for key in ("max_minutes", "clip_norm", "checkpoint_minutes"):
            value = getattr(self, key)
            require(
                value is None or (value > 0 and math.isfinite(value)),
                f"training.{key}={value}: must be above 0 and finite (or null for none)",
            )
        require_one_of("training.non_finite", self.non_finite, ("stop", "skip"))
        for key in ("dropout", "weight_dropout", "word_dropout", "min_gain"):
            require_share(f"training.{key}", getattr(self, key))
        for key in ("activation_regularization", "temporal_activation_regularization"):
            weight = getattr(self, key)
            require(
                0 <= weight < math.inf,
                f"training.{key}={weight}: must be at least 0 and finite",
            )
        require(
            self.patience is None or self.patience >= 1,
            f"training.patience={self.patience}: must be at least 1 validation (or null for never)",
        )


register_schema("training", "default", TrainingConfig)


@dataclass(frozen=True)
class ScheduleConfig:
    name: str
    needs_validation: ClassVar[bool] = False


@register("optimizer/schedule", "constant", builds="unroll.training.optimizers:Constant")
@dataclass(frozen=True)
class ConstantConfig(ScheduleConfig):
    """A constant learning rate."""


@register("optimizer/schedule", "cosine", builds="unroll.training.optimizers:Cosine")
@dataclass(frozen=True)
class CosineConfig(ScheduleConfig):
    """Rise over `warmup_steps`, then fall along a half cosine (Loshchilov and Hutter 2017)."""

    warmup_steps: int
    final_fraction: float
    """The last learning rate, as a fraction of the configured one."""

    def __post_init__(self) -> None:
        require(
            self.warmup_steps >= 0,
            f"optimizer.schedule.warmup_steps={self.warmup_steps}: must be at least 0",
        )
        require(
            0 <= self.final_fraction <= 1,
            f"optimizer.schedule.final_fraction={self.final_fraction}: must be from 0 to 1",
        )


@register("optimizer/schedule", "step", builds="unroll.training.optimizers:Step")
@dataclass(frozen=True)
class StepConfig(ScheduleConfig):
    """Multiply by `factor` every `every` epochs."""

    every: int
    factor: float

    def __post_init__(self) -> None:
        require(self.every >= 1, f"optimizer.schedule.every={self.every}: must be at least 1 epoch")
        require(
            0 < self.factor <= 1,
            f"optimizer.schedule.factor={self.factor}: must be above 0 and at most 1",
        )


@register("optimizer/schedule", "plateau", builds="unroll.training.optimizers:Plateau")
@dataclass(frozen=True)
class PlateauConfig(ScheduleConfig):
    """Divide by `divisor` after `patience` validations in a row without a better one."""

    needs_validation: ClassVar[bool] = True
    divisor: float
    patience: int

    def __post_init__(self) -> None:
        require(self.divisor > 1, f"optimizer.schedule.divisor={self.divisor}: must be above 1")
        require(
            self.patience >= 1, f"optimizer.schedule.patience={self.patience}: must be at least 1"
        )


@dataclass(frozen=True)
class OptimizerConfig:
    name: str
    learning_rate: float
    weight_decay: float
    schedule: ScheduleConfig

    def __post_init__(self) -> None:
        require(
            self.learning_rate > 0 and math.isfinite(self.learning_rate),
            f"optimizer.learning_rate={self.learning_rate}: must be above 0 and finite",
        )
        require(
            self.weight_decay >= 0,
            f"optimizer.weight_decay={self.weight_decay}: must be at least 0",
        )

    @property
    def row_sparse(self) -> bool:
        """Whether a step leaves a row of the embedding without a gradient as it is."""
        return self.needs_rows

    @property
    def needs_rows(self) -> bool:
        """Whether a step depends on which rows have a gradient, even one of zeros."""
        return False


@dataclass(frozen=True)
class AdaptiveConfig(OptimizerConfig):
    beta1: float
    beta2: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("beta1", "beta2"):
            require_share(f"optimizer.{key}", getattr(self, key))


@register("optimizer", "adam", builds="unroll.training.optimizers:adam")
@dataclass(frozen=True)
class AdamConfig(AdaptiveConfig):
    """Adam (Kingma and Ba 2015)."""

    embedding_rows: str
    """all: every row of the embedding moves and ages in every step, which is Adam. touched: only
    the rows of the tokens in the batch, as in torch.optim.SparseAdam: another optimizer for rare
    words, and faster with a large vocabulary. It needs weights that are not tied."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("optimizer.embedding_rows", self.embedding_rows, EMBEDDING_ROWS)
        require(
            self.embedding_rows == "all" or self.weight_decay == 0,
            f"optimizer.weight_decay={self.weight_decay}: optimizer.embedding_rows=touched has no "
            "weight decay, as rows that are not in the batch stay where they are: set "
            "optimizer.weight_decay=0, or optimizer.embedding_rows=all",
        )

    @property
    def needs_rows(self) -> bool:
        return self.embedding_rows == "touched"


@register("optimizer", "adamw", builds="unroll.training.optimizers:adamw")
@dataclass(frozen=True)
class AdamWConfig(AdaptiveConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""


@register("optimizer", "sgd", builds="unroll.training.optimizers:sgd")
@dataclass(frozen=True)
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    momentum: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("optimizer.momentum", self.momentum)

    @property
    def row_sparse(self) -> bool:
        return self.momentum == self.weight_decay == 0


def require_validation_split(
    training: TrainingConfig, optimizer: OptimizerConfig, splits: Container[str]
) -> None:
    """Raise ``Refused`` if a setting uses validation scores and ``splits`` has no "valid"."""
    schedule = optimizer.schedule
    for setting, used, instead in (
        (
            f"training.patience={training.patience}",
            training.patience is not None,
            "training.patience=null",
        ),
        (
            f"optimizer/schedule={schedule.name}",
            schedule.needs_validation,
            "another optimizer/schedule",
        ),
        (
            f"training/averaging={training.averaging.name}",
            training.averaging.needs_validation,
            "another training/averaging",
        ),
    ):
        require(
            not used or "valid" in splits,
            f"{setting} needs a validation split, and this corpus has none: set "
            f"data.valid_fraction above 0, or {instead}",
        )
