"""The training loop: unroll, backpropagate, clip, step; validate; keep the best model."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unroll.config import Config
from unroll.data.batching import Batch, Batching
from unroll.data.token_stream import TokenStream
from unroll.errors import Diverged, Terminated
from unroll.evaluation.perplexity import perplexity
from unroll.models.language_model import LanguageModel
from unroll.registry import build
from unroll.training.averaging import NoAveraging
from unroll.training.compilation import compiled
from unroll.training.config import OptimizerConfig, TrainingConfig
from unroll.training.generators import generator_states, set_generator_states
from unroll.training.gradients import KeptGradient, clip_gradients, sparse_embedding
from unroll.training.interruption import Interruption, interruptible
from unroll.training.learner import Callbacks, Outcome
from unroll.training.optimizers import Schedule, scaled_rates
from unroll.training.parallel import OneProcess
from unroll.training.penalties import ActivationPenalty
from unroll.training.progress import Mean, Pending, Progress, Step
from unroll.training.progress_bar import ProgressBar
from unroll.training.truncation import Truncation

READ_AFTER = 1000
"""Steps after which their figures are read, even if no point of a curve is due."""


class Trainer:
    """Trains a recurrent model on one stream by gradient descent.

    ``state_dict`` holds the whole state of the training. A second trainer with the same arguments
    that loads it continues exactly as the first one would have.

    Args:
        stream: the training split.
        seed: of the order of batches and of random truncation.
        processes: those that train together, each with a trainer of the same arguments; all call
            the same methods. None: this one alone.

    Raises:
        Refused: the stream is too short for one batch, or the schedule needs a known end.
    """

    def __init__(
        self,
        model: LanguageModel,
        stream: TokenStream,
        batching: Batching,
        config: TrainingConfig,
        optimizer_config: OptimizerConfig,
        seed: int,
        callbacks: Callbacks,
        processes: OneProcess | None = None,
    ) -> None:
        self.processes = processes or OneProcess()
        self.processes.start(model, seed)
        self.model, self.stream, self.batching, self.config = model, stream, batching, config
        self.seed, self.callbacks, self.pruned = seed, callbacks, False
        self.outcome, self.progress = Outcome(), Progress()
        self.unread: list[Step] = []
        self.truncation: Truncation = build("training/truncation", config.truncation, seed)
        self.averaging: NoAveraging = build("training/averaging", config.averaging, model)
        self.per_epoch = -(-batching.steps(stream) // config.accumulation)
        epochs = (config.epochs or math.inf) * self.per_epoch
        self.last_step = min(config.max_steps or math.inf, epochs)
        total = None if math.isinf(self.last_step) else int(self.last_step)
        self.penalty = ActivationPenalty(model, config)
        self.reader: LanguageModel = compiled(model, total) if config.compile else model
        embedding = sparse_embedding(model, optimizer_config)
        self.embedding_gradient: AbstractContextManager[None] = nullcontext()
        if embedding is not None and not optimizer_config.row_sparse:
            self.embedding_gradient = KeptGradient(embedding)
        self.optimizer: Optimizer = build("optimizer", optimizer_config, list(model.parameters()))
        self.schedule: Schedule = build(
            "optimizer/schedule", optimizer_config.schedule, self.optimizer, total
        )

    @classmethod
    def from_config(
        cls,
        config: Config,
        model: LanguageModel,
        stream: TokenStream,
        callbacks: Callbacks,
        processes: OneProcess | None = None,
    ) -> Trainer:
        """The trainer of a composed config."""
        batching: Batching = build("data/batching", config.data.batching)
        training, optimizer, seed = config.training, config.optimizer, config.seed
        return cls(model, stream, batching, training, optimizer, seed, callbacks, processes)

    def fit(self) -> Outcome:
        """Train until the config says to end or a signal interrupts.

        Raises:
            Diverged: the loss or the gradient is NaN or infinite.
            Terminated: SIGTERM ended it; its state is kept.
        """
        outcome, self._kept_at = self.outcome, time.monotonic()
        self.model.train()
        with interruptible() as interrupted:
            self._validate_if_due()
            while not (self._ended() or self.processes.any(interrupted.is_set())):
                self._epoch(interrupted)
        self._keep_state()  # before what a training that goes on would not do
        if self.processes.any(interrupted.terminated):
            self.callbacks.state_kept()
            raise Terminated
        outcome.interrupted = self.processes.any(interrupted.is_set())
        outcome.pruned = self.pruned
        self._save("last")
        if self.progress.validated_at != outcome.steps:
            self._validate()
        if outcome.best_valid is None:
            self._save("best")
            outcome.best_step = outcome.steps
        self.callbacks.state_kept()
        return outcome

    def state_dict(self) -> dict[str, Any]:
        """The whole state between two steps: a dict of numbers, strings, lists, tuples and
        tensors. Every callback may ask for it.

        Like PyTorch's own, it refers to the tensors in use: copy it to keep it while the training
        goes on.

        Raises:
            Diverged: the loss or the gradient is NaN or infinite.
        """
        self._read()
        state = {
            "model": self.averaging.weights(),
            "averaging": self.averaging.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "truncation": self.truncation.state_dict(),
            "generators": generator_states(self.model.device),
            "progress": self.progress.state_dict(),
            "outcome": self.outcome.state_dict(),
        }
        return state | self.processes.gathered(self.model, state["generators"], self.progress.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``, which is copied."""
        state, self.unread = deepcopy(dict(state)), []
        self.model.load_state_dict(state["model"])
        if "averaging" in state:  # else an earlier version saved it
            self.averaging.load_state_dict(state["averaging"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.truncation.load_state_dict(state["truncation"])
        self.progress = Progress.from_state_dict(state["progress"])
        generators = state["generators"]
        if "processes" in state:  # each has its own
            own = state["processes"][self.processes.rank]
            generators, self.progress.state = own["generators"], own["state"]
        set_generator_states(generators, self.model.device)
        if self.progress.state is not None:
            self.progress.state = self.model.moved(self.progress.state)
        self.outcome = Outcome.from_state_dict(state["outcome"])
        best = self.outcome.best_valid
        if best is not None and math.isinf(self.progress.reached):  # an earlier version saved it
            self.progress.reached = best.nats_per_token

    def _ended(self) -> bool:
        """Whether one of the bounds is reached, or the run is pruned."""
        config, progress, outcome = self.config, self.progress, self.outcome
        return (
            self.pruned
            or (config.epochs is not None and progress.epoch >= config.epochs)
            or (config.max_steps is not None and outcome.steps >= config.max_steps)
            or (config.patience is not None and progress.waited >= config.patience)
            or (
                config.max_minutes is not None
                and self.processes.any(outcome.seconds >= 60 * config.max_minutes)
            )
        )

    def _epoch(self, interrupted: Interruption) -> None:
        """The rest of the current epoch, or the part of it before the training ends."""
        progress, outcome = self.progress, self.outcome
        number, done = progress.epoch + 1, progress.steps
        with ProgressBar(number, self.config.epochs, self.per_epoch, done) as bar:
            for group in self._groups():
                self._step(group)
                bar.show(outcome)
                self._validate_if_due()
                if progress.steps < self.per_epoch:  # else it is kept at the end of the epoch
                    self._keep_state_if_due()
                if self._ended() or self.processes.any(interrupted.is_set()):
                    return
        self._read()
        progress.epoch, progress.steps, progress.state = progress.epoch + 1, 0, None
        progress.epoch_loss = Mean()
        outcome.epochs = float(progress.epoch)
        self.schedule.after_epoch()
        loss = outcome.train_loss
        self._log({"train/epoch_loss": loss, "train/epoch_perplexity": perplexity(loss)})
        self._validate_if_due()
        self._keep_state_if_due()

    def _groups(self) -> Iterator[list[Batch]]:
        """The batches of each optimizer step that is left in the epoch."""
        size, progress = self.config.accumulation, self.progress
        batches = self.batching.batches(self.stream, self.seed, progress.epoch)
        left = islice(batches, progress.steps * size, None)
        return iter(lambda: list(islice(left, size)), [])

    def _step(self, group: list[Batch]) -> None:
        """One optimizer step over the batches of ``group``."""
        progress, outcome = self.progress, self.outcome
        start, state = time.perf_counter(), progress.state
        step = self._descend(group)
        seconds = time.perf_counter() - start
        if step is None:
            outcome.skipped, progress.state = outcome.skipped + 1, state
            outcome.add_step(seconds, 0)
        else:
            outcome.add_step(seconds, sum(step.counts))
            self.unread.append(step)
        progress.steps += 1
        outcome.epochs = progress.epoch + min(1.0, progress.steps / self.per_epoch)
        if outcome.steps == 1 or outcome.steps % self.callbacks.log_every == 0:
            self._log_point()
        elif len(self.unread) == READ_AFTER:
            self._read()

    def _descend(self, group: list[Batch]) -> Step | None:
        """Average the gradients over the batches of ``group``, clip them, move the weights. On an
        accelerator all of it is only queued, except with ``non_finite=skip``. None if the step was
        skipped."""
        losses, counts = self._backward(group)
        norm = clip_gradients(self.model.parameters(), self.config.clip_norm)
        pace = sum(batch.pace for batch in group) / len(group)
        learning_rate = float(self.optimizer.param_groups[0]["lr"]) * pace
        skipped = self.config.non_finite == "skip" and not all(
            math.isfinite(figure.item()) for figure in (*losses, norm)
        )
        if not skipped:
            with self.embedding_gradient, scaled_rates(self.optimizer, pace):
                self.optimizer.step()
            self.averaging.after_step()
        self.schedule.after_step()
        return None if skipped else Step(losses, counts, norm, learning_rate)

    def _backward(self, group: list[Batch]) -> tuple[list[Tensor], list[int]]:
        """The loss and the number of targets of each batch of ``group``; their mean gradient."""
        model, progress = self.model, self.progress
        losses, counts, parts = [], [], []
        self.optimizer.zero_grad(set_to_none=True)
        for whole in group:
            batch = self.processes.part(whole).to(model.device)
            state = progress.state if batch.carry else model.initial_state(len(batch.inputs))
            hidden, state = self.truncation.unroll(self.reader, batch.inputs, state, batch.share)
            hidden, targets = batch.scored(hidden)
            loss: Tensor = model.softmax.loss(hidden, targets)
            divisor = len(group) * batch.share.parts
            (self.penalty.added_to(loss) / divisor).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            counts.append(batch.share.targets or len(targets))
            parts.append(batch)
            progress.state = model.detach(state)
        self.processes.add_up(model, parts, losses)
        return losses, counts

    def _read(self) -> None:
        """Wait for the steps since the last reading, and add up their figures.

        Raises:
            Diverged: with the first step at which the loss or the gradient's norm is not finite.
        """
        steps, outcome, progress = self.unread, self.outcome, self.progress
        if not steps:
            return
        start = time.perf_counter()
        queued = [figure for step in steps for figure in (*step.losses, step.grad_norm)]
        figures = iter(torch.stack(queued).tolist())
        outcome.add_wait(time.perf_counter() - start, len(steps))
        for number, step in enumerate(steps, outcome.steps - len(steps) + 1):
            loss = Mean()
            for count in step.counts:
                loss.add(next(figures), count)
            grad_norm = next(figures)
            self._require_finite("loss", loss.value, number, step.learning_rate)
            self._require_finite("gradient norm", grad_norm, number, step.learning_rate)
            progress.epoch_loss.add(loss.value, loss.count)
            progress.pending.add(loss, grad_norm, step.learning_rate)
        outcome.train_loss = progress.epoch_loss.value
        self.unread = []

    def _require_finite(self, name: str, value: float, step: int, learning_rate: float) -> None:
        if not math.isfinite(value):
            bound = self.config.clip_norm
            raise Diverged(
                f"the {name} is {'NaN' if math.isnan(value) else 'infinite'} at step {step} "
                f"(learning rate {learning_rate:g}, training.clip_norm="
                f"{'null' if bound is None else bound}): lower optimizer.learning_rate or set a "
                "smaller training.clip_norm"
            )

    def _save(self, name: str) -> None:
        """Save the model as checkpoint ``name``, unless a weight is NaN or infinite."""
        self._read()
        largest = float(nn.utils.get_total_norm(list(self.model.parameters()), math.inf))
        rate = float(self.optimizer.param_groups[0]["lr"])
        self._require_finite("largest weight", largest, self.outcome.steps, rate)
        with self.averaging.used():
            self.callbacks.save(name, self.outcome.steps)

    def _keep_state_if_due(self) -> None:
        """Keep the state after ``checkpoint_every`` steps or ``checkpoint_minutes``."""
        every, minutes = self.config.checkpoint_every, self.config.checkpoint_minutes
        waited = time.monotonic() - self._kept_at
        if (every is not None and self.outcome.steps % every == 0) or (
            minutes is not None and self.processes.any(waited >= 60 * minutes)
        ):
            self._keep_state()

    def _keep_state(self) -> None:
        self.callbacks.keep_state(self.state_dict(), self.outcome.steps)
        self._kept_at = time.monotonic()

    def _log_point(self) -> None:
        """Log the training curves over the steps since the last point."""
        self._read()
        figures = self.progress.pending.figures()
        if self.config.non_finite == "skip":
            figures["skipped_steps"] = float(self.outcome.skipped)
        self.progress.pending = Pending()
        self._log(figures | {"tokens_per_second": self.outcome.tokens_per_second})

    def _log(self, figures: dict[str, float]) -> None:
        self.outcome.add_point(figures)
        self.callbacks.log(figures, self.outcome.steps)

    def _validate_if_due(self) -> None:
        """Validate after ``validate_every`` steps or after an epoch, but once per step."""
        every, steps = self.config.validate_every, self.outcome.steps
        due = self.progress.steps == 0 if every is None else steps % every == 0
        if due and self.progress.validated_at != steps:
            self._validate()

    def _validate(self) -> None:
        """Validate; save the model if it is the best so far.

        The model is saved before anything says that it is the best: a state that is asked for
        while it is saved validates once more.
        """
        self._read()
        progress, outcome = self.progress, self.outcome
        if progress.pending.loss.count:
            self._log_point()
        with self.averaging.used():
            found = self.callbacks.validate()
        if found is None:
            progress.validated_at = outcome.steps
            return
        loss = found.nats_per_token
        if math.isnan(loss):
            raise Diverged(
                f"the validation loss is NaN at step {outcome.steps}: lower "
                "optimizer.learning_rate or set a smaller training.clip_norm"
            )
        if outcome.best_valid is None or loss < outcome.best_valid.nats_per_token:
            self._save("best")
            outcome.best_valid, outcome.best_step = found, outcome.steps
        if loss < progress.reached + math.log1p(-self.config.min_gain):
            progress.reached, progress.waited = loss, 0
        else:
            progress.waited += 1
        progress.validated_at = outcome.steps
        self.schedule.after_validation(loss)
        self.averaging.after_validation(loss)
        self._log(
            {
                "valid/loss": loss,
                "valid/perplexity": found.perplexity,
                "valid/accuracy": found.accuracy,
            }
        )
        stop = self.callbacks.should_stop(loss, len(outcome.history["valid/loss"]))
        at_end = self._ended() or outcome.steps >= self.last_step  # there is nothing to save
        self.pruned = self.processes.any(stop) and not at_end
