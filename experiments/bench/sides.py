"""The sides of the rows: what is timed, made from overrides and a text."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.bench import growth, others, ours, peer
from experiments.bench.contest import Bench, Contest, Ours, bar
from experiments.bench.counts import Cost, limit
from experiments.bench.ours import Subject
from experiments.bench.text import Text, corpus, generated
from experiments.bench.turns import SECONDS, Repeated, Turn, Work
from unroll.app import compose
from unroll.config import Config
from unroll.tracking.config import MLflowConfig
from unroll.tracking.tracker import MLflowTracker
from unroll.training.learner import Silent

Of = Callable[[Bench], Text]
Other = Callable[[Bench], Turn]
Side = Callable[[Config, Text, str], Work]
Make = Callable[[Bench], Ours]
Way = Callable[[Subject], tuple[Repeated, Cost]]
"""A way of using a model: what is timed, and the cost of a word."""

CHARACTERS = (
    "model=lstm model.embedding_size=256 model.hidden_size=256 data.batching.batch_size=32 "
    "data.batching.length=64"
)
TRAINED = "model=lstm model.embedding_size=200 model.hidden_size=200"
EPOCHS = 2
TRACKED = "model=lstm model.embedding_size=128 model.hidden_size=128"


def news(bench: Bench) -> Text:
    return bench.news


def treebank(bench: Bench) -> Text:
    return bench.treebank


def characters(bench: Bench) -> Text:
    return generated(500_000, 100)


def lee(bench: Bench) -> Text:
    return corpus("data=lee_news")


def subject(words: str, text: Of, bench: Bench) -> Subject:
    """Our model with the overrides of the command."""
    return Subject.of([*words.split(), *bench.extra], text(bench), bench.device)


def ours_by(way: Way, words: str, text: Of) -> Make:
    """Our side of a row."""

    def make(bench: Bench) -> Ours:
        one = subject(words, text, bench)
        turn, cost = way(one)
        return Ours(turn, one.precision, cost)

    return make


def learning(one: Subject, seconds: float = SECONDS) -> tuple[Repeated, Cost]:
    """Training, timed by steps; ``seconds`` are those of a turn."""
    batching: Any = one.config.data.batching
    words = batching.batch_size * batching.length
    cost = one.shape.learning(words, one.config.optimizer.name)
    return Repeated(ours.Learning(one), seconds=seconds), cost


def scoring(one: Subject) -> tuple[Repeated, Cost]:
    """Scoring, timed by words: so many that they are read in columns, as a test split is."""
    return Repeated(ours.scoring(one), 40_000, 6.0), one.shape.scoring()


def writing(texts: int) -> Way:
    """Writing texts side by side, timed by the words of each."""
    return lambda one: (Repeated(ours.writing(one, texts), 20), one.shape.writing(texts))


def writing_in_eight_bits(words: str, text: Of, texts: int) -> Make:
    """The same with weights of eight bits."""

    def make(bench: Bench) -> Ours:
        one = subject(words, text, bench)
        small = ours.eight_bits(one)
        turn = Repeated(ours.writing(small, texts), 20)
        return Ours(turn, "int8", one.shape.writing(texts, bytes_per_weight=1))

    return make


SOFTMAXES = {"full": "", "adaptive": "model/softmax=adaptive"}


def softmaxes(way: Way, words: str, text: Of) -> dict[str, Make]:
    """Our side with each softmax."""
    return {name: ours_by(way, f"{words} {choice}", text) for name, choice in SOFTMAXES.items()}


def other_by(side: Side, words: str, text: Of, seconds: float = SECONDS) -> Other:
    """One of the other sides in this process; ``seconds`` are those of a turn."""

    def turn(bench: Bench) -> Turn:
        work = side(ours.composed(words.split()), text(bench), bench.device)
        return Repeated(work, seconds=seconds)

    return turn


def example(cell: str, units: int) -> Other:
    """PyTorch's example, a process for each turn."""
    return lambda bench: (
        lambda: peer.words_a_second(bench.given["PEER"], bench.given["PENN_TREEBANK"], cell, units)
    )


def plain_lines(bench: Bench) -> Turn:
    """Plain lines for characters, with bfloat16 where the machine multiplies it natively."""
    native, text = bench.machine.native_bfloat16, characters(bench)
    products = torch.autocast(bench.device, torch.bfloat16, enabled=native)
    config = ours.composed(CHARACTERS.split())
    return Repeated(others.twin_learning(config, text, bench.device, products))


def share(name: str, unit: str, way: Way, words: str) -> Contest:
    """A row that compares us with the machine: what it could do if it only multiplied."""

    def other(bench: Bench) -> Turn:
        one = subject(words, news, bench)
        products = bench.machine.rate(one.precision)
        rate = limit(Cost(way(one)[1].operations, 0.0), products, 1.0).rate
        return lambda: rate

    make = ours_by(way, words, news)
    return Contest("share", name, unit, "the product rate", other, {"": make}, {"": bar(0.5)})


def learned_perplexity(softmax: str) -> Make:
    """Perplexity of the validation text after our training of ``EPOCHS``."""

    def make(bench: Bench) -> Ours:
        one = subject(f"{TRAINED} {softmax}", lee, bench)

        def turn() -> float:
            ours.Learning(one)(EPOCHS * others.steps(one.config, one.text))
            return ours.scored(one, one.text.valid).perplexity

        return Ours(turn, one.precision)

    return make


def twin_perplexity(bench: Bench) -> Turn:
    """The same after the plain twin's training."""
    one = Subject.of(TRAINED.split(), lee(bench), bench.device)
    steps = EPOCHS * others.steps(one.config, one.text)
    return lambda: others.twin_perplexity(one, bench.device, steps)


class Tracked(Silent):
    """Callbacks that log every point to MLflow, in a store that lives as long as they do."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        tracking = compose([f"tracking.directory={Path(self._folder.name)}"]).tracking
        assert isinstance(tracking, MLflowConfig)
        self.tracker = MLflowTracker(tracking)
        self.tracker.start(Path(self._folder.name) / "run", "bench", {}, {})

    @property
    def log_every(self) -> int:
        return self.tracker.every

    def log(self, figures: dict[str, float], step: int) -> None:
        self.tracker.log(figures, step)

    def close(self) -> None:
        """End the run, then delete its store."""
        self.tracker.finish()
        self._folder.cleanup()


def tracked(bench: Bench) -> Ours:
    """Our training with tracking; the points that are held back are written in each turn."""
    one, callbacks = subject(TRACKED, treebank, bench), Tracked()
    learning = ours.Learning(one, callbacks)

    def work(steps: int) -> float:
        learned = learning(steps)
        callbacks.tracker.flush()
        return learned

    atexit.register(callbacks.close)
    return Ours(Repeated(work), one.precision)


def untracked(bench: Bench) -> Turn:
    """The same without."""
    return Repeated(ours.Learning(subject(TRACKED, treebank, bench)))


def memory(tokens: int) -> Turn:
    """Megabytes that a process takes at most while it learns ``growth.READ`` words of a text."""

    def turn() -> float:
        return growth.probe(growth.TINY, tokens, growth.TINY_VOCABULARY, growth.READ).megabytes

    return turn
