"""The training loop: unroll, score, go back, clip, step; validate; keep the best."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from unroll.data.batching import IGNORE, Batch, Batching
from unroll.data.token_stream import TokenStream
from unroll.errors import Diverged
from unroll.evaluation.perplexity import Score
from unroll.models.language_model import LanguageModel
from unroll.registry import build
from unroll.training.config import OptimizerConfig, TrainingConfig
from unroll.training.optimizers import Schedule
from unroll.training.truncation import Truncation


class Log(Protocol):
    """Where points of a curve go."""

    def log(self, figures: dict[str, float], step: int) -> None: ...


class Learner(Protocol):
    """What trains a model, by gradient or by counting."""

    def fit(self) -> Outcome: ...


@dataclass
class Outcome:
    """How a training ended."""

    epochs: float = 0.0
    """Epochs done, the last one possibly in part."""
    steps: int = 0
    tokens: int = 0
    """Targets that were learned from."""
    seconds: float = 0.0
    """Time spent on training steps, validation not counted."""
    train_loss: float = math.nan
    """Mean loss, in nats per target, over the last epoch (or what was done of it)."""
    best_valid: Score | None = None
    best_step: int = 0
    interrupted: bool = False
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that is past a float."""
    return math.exp(loss) if loss < 709 else math.inf


class Trainer:
    """Trains a model on one stream.

    Args:
        stream: what to learn from.
        validate: scores the validation split; None where there is none.
        save: writes a checkpoint, ``save(name, step)`` with name "best" or "last".
        log: takes points of the curves, every ``log_every`` optimizer steps.

    Raises:
        Refused: the stream is too short for one batch, or the schedule has to know its end.
    """

    def __init__(
        self,
        model: LanguageModel,
        stream: TokenStream,
        batching: Batching,
        config: TrainingConfig,
        optimizer_config: OptimizerConfig,
        *,
        seed: int,
        validate: Callable[[], Score] | None,
        save: Callable[[str, int], None],
        log: Log,
        log_every: int,
    ) -> None:
        self.model, self.stream, self.batching, self.config = model, stream, batching, config
        self.seed = seed
        self.validate, self.save, self.log, self.log_every = validate, save, log, log_every
        self.outcome = Outcome()
        self.waited, self.validated_at, self.pending = 0, 0, _Mean()
        self.truncation: Truncation = build("training/truncation", config.truncation, seed)
        self.per_epoch = -(-batching.steps(stream) // config.accumulation)
        bounds = [config.max_steps or math.inf, (config.epochs or math.inf) * self.per_epoch]
        total = None if math.isinf(min(bounds)) else int(min(bounds))
        self.optimizer: Optimizer = build("optimizer", optimizer_config, list(model.parameters()))
        self.schedule: Schedule = build(
            "optimizer/schedule", optimizer_config.schedule, self.optimizer, total
        )

    def fit(self) -> Outcome:
        """Train until a bound of the config is met, patience ends, or the person interrupts.

        Raises:
            Diverged: the loss is no number; the line names step and cause.
        """
        config, outcome = self.config, self.outcome
        self.model.train()
        with interruptible() as interrupted:
            for epoch in range(config.epochs or sys.maxsize):
                finished = self._epoch(epoch, interrupted)
                if not finished:
                    break
                self.schedule.after_epoch()
                if config.validate_every is None and self._validated():
                    break
            outcome.interrupted = interrupted.is_set()
        self.save("last", outcome.steps)
        if self.validated_at != outcome.steps:
            self._validated()
        if outcome.best_valid is None:
            outcome.best_step = outcome.steps
            self.save("best", outcome.steps)
        return outcome

    def _epoch(self, epoch: int, interrupted: threading.Event) -> bool:
        """One pass over the stream; False if the training ends within it."""
        config, outcome = self.config, self.outcome
        mean, state = _Mean(), None
        batches = self.batching.batches(self.stream, self.seed, epoch)
        with _progress(self.per_epoch, epoch, config.epochs) as bar:
            for done, group in enumerate(_grouped(batches, config.accumulation), start=1):
                start = time.perf_counter()
                state, loss, tokens = self._step(group, state)
                outcome.seconds += time.perf_counter() - start
                outcome.steps += 1
                outcome.tokens += tokens
                outcome.epochs = epoch + min(1.0, done / self.per_epoch)
                mean.add(loss, tokens)
                self.pending.add(loss, tokens)
                outcome.train_loss = mean.value
                bar.update()
                if not bar.disable:
                    bar.set_postfix(
                        loss=f"{mean.value:.3f}",
                        ppl=f"{perplexity(mean.value):.1f}",
                        tok_s=f"{outcome.tokens_per_second:,.0f}",
                        refresh=False,
                    )
                if outcome.steps == 1 or outcome.steps % self.log_every == 0:
                    self._point()
                if interrupted.is_set() or self._spent():
                    return False
                due = config.validate_every and outcome.steps % config.validate_every == 0
                if due and self._validated():
                    return False
        outcome.epochs = epoch + 1.0
        self._log(
            {"train/epoch_loss": mean.value, "train/epoch_perplexity": perplexity(mean.value)}
        )
        return True

    def _spent(self) -> bool:
        config, outcome = self.config, self.outcome
        if config.max_steps is not None and outcome.steps >= config.max_steps:
            return True
        return config.max_minutes is not None and outcome.seconds >= 60 * config.max_minutes

    def _step(self, group: list[Batch], state: object) -> tuple[object, float, int]:
        """One optimizer step over the batches of ``group``; the state after them, the mean loss
        and the number of targets."""
        model, config, outcome = self.model, self.config, self.outcome
        mean = _Mean()
        self.optimizer.zero_grad(set_to_none=True)
        for batch in group:
            batch = batch.to(model.device)
            fresh = not batch.carry
            state = model.initial_state(len(batch.inputs)) if fresh else model.detach(state)
            hidden, state = self.truncation.unroll(model, batch.inputs, state)
            scored = batch.targets != IGNORE
            loss: Tensor = model.softmax.loss(hidden[scored], batch.targets[scored])
            (loss / len(group)).backward()  # type: ignore[no-untyped-call]
            mean.add(loss.item(), int(scored.sum()))
        bound = math.inf if config.clip_norm is None else config.clip_norm
        self.grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), bound)
        if not math.isfinite(mean.value) or not self.grad_norm.isfinite():
            raise Diverged(
                f"the loss is {mean.value} at step {outcome.steps + 1}: learning rate "
                f"{self._learning_rate():g}, gradient norm {self.grad_norm.item():g}, clip_norm "
                f"{config.clip_norm}; lower optimizer.learning_rate or set training.clip_norm"
            )
        self.learning_rate = self._learning_rate()
        self.optimizer.step()
        self.schedule.after_step()
        return state, mean.value, mean.count

    def _learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _point(self) -> None:
        """Log the training curves, the loss averaged over the steps since the last point."""
        figures = {
            "train/loss": self.pending.value,
            "train/perplexity": perplexity(self.pending.value),
            "grad_norm": float(self.grad_norm),
            "learning_rate": self.learning_rate,
            "tokens_per_second": self.outcome.tokens_per_second,
        }
        self.pending = _Mean()
        self._log(figures)

    def _log(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.outcome.history.setdefault(name, []).append((self.outcome.steps, value))
        self.log.log(figures, self.outcome.steps)

    def _validated(self) -> bool:
        """Validate, keep the checkpoint if it is the best; True when patience is at its end."""
        outcome, config = self.outcome, self.config
        self.validated_at = outcome.steps
        if self.pending.count:
            self._point()
        if self.validate is None:
            return False
        found = self.validate()
        if math.isnan(found.nats_per_token):
            raise Diverged(
                f"the validation loss is nan at step {outcome.steps}: the last updates broke the "
                "weights; lower optimizer.learning_rate or set training.clip_norm"
            )
        self._log(
            {
                "valid/loss": found.nats_per_token,
                "valid/perplexity": found.perplexity,
                "valid/accuracy": found.accuracy,
            }
        )
        self.schedule.after_validation(found.nats_per_token)
        if outcome.best_valid is None or found.nats_per_token < outcome.best_valid.nats_per_token:
            outcome.best_valid, outcome.best_step, self.waited = found, outcome.steps, 0
            self.save("best", outcome.steps)
            return False
        self.waited += 1
        return config.patience is not None and self.waited >= config.patience


class _Mean:
    """A mean of losses, each weighted by its targets."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, loss: float, count: int) -> None:
        self.total += loss * count
        self.count += count

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else math.nan


def _grouped(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _progress(steps: int, epoch: int, epochs: int | None) -> Any:
    """A bar on a terminal, nothing elsewhere."""
    title = f"epoch {epoch + 1}" + (f"/{epochs}" if epochs else "")
    return tqdm(total=steps, desc=title, unit="step", leave=False, disable=None)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets. A second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
