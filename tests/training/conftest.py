"""A small training on a small stream, and what it logged and saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from unroll.data.token_stream import TokenStream
from unroll.evaluation.perplexity import Score
from unroll.models.language_model import LanguageModel
from unroll.registry import build
from unroll.training.loop import Trainer

VOCABULARY = 12


@pytest.fixture(scope="session")
def stream() -> TokenStream:
    """120 tokens in 4 documents: 7 sequential batches of 3 x 5, or 100 windows of 5."""
    ids = np.random.default_rng(1).integers(0, VOCABULARY, 120)
    return TokenStream.from_documents(list(ids.reshape(4, 30)))


@dataclass
class Diary:
    """Callbacks that keep what they are given. ``on_call`` is called first, ``at[step]`` after the
    training curves of that step."""

    losses: Callable[[], float] | None = None
    log_every: int = 1
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    saved: list[tuple[str, int]] = field(default_factory=list)
    states: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    at: dict[int, Callable[[], Any]] = field(default_factory=dict)
    on_call: Callable[[], Any] = lambda: None
    stop_at: int | None = None
    validations: list[tuple[float, int]] = field(default_factory=list)

    def log(self, figures: dict[str, float], step: int) -> None:
        self.on_call()
        self.points.append((step, figures))
        if "train/loss" in figures and step in self.at:
            self.at.pop(step)()

    def save(self, name: str, step: int) -> None:
        self.on_call()
        self.saved.append((name, step))

    def keep_state(self, state: Mapping[str, Any], step: int) -> None:
        self.states.append((step, deepcopy(dict(state))))

    def state_kept(self) -> None:
        pass

    def should_stop(self, loss: float, validation: int) -> bool:
        self.validations.append((loss, validation))
        return validation == self.stop_at

    def validate(self) -> Score | None:
        self.on_call()
        return None if self.losses is None else scored(self.losses())


def scored(loss: float) -> Score:
    return Score(
        "stream", loss, tokens=1, counted=1, hits=0, unknown=0, characters=1.0, seconds=1.0
    )


@dataclass
class Training:
    """A trainer, and what it logged and saved."""

    trainer: Trainer
    diary: Diary

    @property
    def model(self) -> LanguageModel:
        return self.trainer.model

    @property
    def parameters(self) -> list[torch.Tensor]:
        return [parameter.detach() for parameter in self.model.parameters()]

    @property
    def history(self) -> dict[str, list[tuple[int, float]]]:
        """The curves, without the one of the clock."""
        curves = self.trainer.outcome.history
        return {name: curve for name, curve in curves.items() if name != "tokens_per_second"}

    def curve(self, name: str) -> list[tuple[int, float]]:
        return self.trainer.outcome.history.get(name, [])


@pytest.fixture
def training(composed, stream) -> Callable[..., Training]:
    """A training of an RNN of 4 units with SGD on sequential batches, unless overridden.

    ``losses`` are the validation losses: a list, in order, or a function of the step.
    """

    def training_(
        *overrides: str,
        losses: list[float] | Callable[[int], float] | None = None,
        batching: dict[str, Any] | None = None,
        optimizer: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        seed: int = 1,
        log_every: int = 1,
        **settings: Any,
    ) -> Training:
        config = composed("model=rnn", "optimizer=sgd", *overrides)
        torch.manual_seed(seed)
        sizes = {"embedding_size": 4, "hidden_size": 4} | (model or {})
        cut = {"length": 5, "batch_size": 3} | (batching or {})
        diary = Diary(log_every=log_every)
        trainer = Trainer(
            LanguageModel(replace(config.model, **sizes), VOCABULARY),
            stream,
            build("data/batching", replace(config.data.batching, **cut)),
            replace(config.training, **({"epochs": 2, "clip_norm": None} | settings)),
            replace(config.optimizer, **({"learning_rate": 0.5} | (optimizer or {}))),
            seed,
            diary,
        )
        if callable(losses):
            diary.losses = lambda: losses(trainer.outcome.steps)
        elif losses is not None:
            diary.losses = iter(losses).__next__
        return Training(trainer, diary)

    return training_
