"""One definition of perplexity for every model and every protocol.

A protocol is a way of reading: it turns a token stream into batches, whose targets are scored
except ``IGNORE``. One loop then sums nats over the batches of any protocol.

    perplexity          = exp(nats / counted)
    bits per character  = nats / ln 2 / characters
    accuracy            = hits / tokens

``tokens`` is the number of scored tokens, ``counted`` is the same, except in ``handout``.
``characters`` is the length of the original text, times the share of its tokens that were
scored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unroll.data.batching import IGNORE, Batch, WindowIndex, last_target_only
from unroll.data.shards import Offsets
from unroll.data.token_stream import TokenStream
from unroll.errors import require
from unroll.evaluation.config import EvaluationConfig
from unroll.models.config import require_one_direction
from unroll.models.model import Model

STEPS_AT_ONCE = 1024
"""Time steps in one batch of ``stream``, ``document`` and ``last``."""

POSITIONS_AT_ONCE = 1 << 15
"""Rows times steps in such a batch: limits the memory for hidden states."""

WARM_UP = 128
"""Tokens that a column of ``stream`` reads before its first scored one. Columns are at least ten
times as long, so that at most a tenth of what is read is not scored."""


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats; inf on overflow."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Score:
    """A model's score of a text. ``nats`` is the sum of ``-log p`` over ``tokens`` scored tokens,
    ``counted`` the number it is divided by, ``hits`` the number of top-1 correct tokens, NaN if
    it is not known."""

    protocol: str
    nats: float
    tokens: int
    counted: int
    hits: float
    unknown: int
    characters: float
    seconds: float

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.counted

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood; inf on overflow."""
        return perplexity(self.nats_per_token)

    @property
    def bits_per_character(self) -> float:
        return self.nats / math.log(2) / self.characters if self.characters else math.nan

    @property
    def accuracy(self) -> float:
        """Share of the scored tokens that are top-1 correct."""
        return self.hits / self.tokens

    @property
    def unknown_rate(self) -> float:
        """Share of the scored tokens that are ``<unk>``."""
        return self.unknown / self.tokens

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else math.inf

    def figures(self) -> dict[str, float | int]:
        """The figures for a result."""
        return {
            "perplexity": self.perplexity,
            "nats_per_token": self.nats_per_token,
            "bits_per_character": self.bits_per_character,
            "accuracy": self.accuracy,
            "tokens": self.tokens,
            "unknown_rate": self.unknown_rate,
        }


class OneReader:
    """Reads every batch whole. A subclass shares the rows out among several processes: each row,
    with its state, belongs to one of them."""

    def part(self, batch: Batch) -> Batch:
        """The rows of a batch that this process reads."""
        return batch

    def sums(self, figures: list[float]) -> list[float]:
        """The sum of each figure over the processes."""
        return figures


def score(
    model: Model,
    stream: TokenStream,
    config: EvaluationConfig,
    unknown: int,
    reader: OneReader | None = None,
) -> Score:
    """Score a token stream under ``config.protocol``.

    Args:
        model: in evaluation mode while it is scored, then as before.
        stream: the documents.
        config: protocol, context and the largest number of rows to read together.
        unknown: id of ``<unk>``.
        reader: the processes that read the stream together; None: this one alone.

    Raises:
        Refused: no token can be scored, or the model reads ahead and the protocol carries state.
    """
    reader = reader or OneReader()
    require_one_direction(model.bidirectional, "evaluation.protocol", config.protocol)
    require_scorable(stream, config, "the text")
    protocol = PROTOCOLS[config.protocol](config, every_position=not model.bidirectional)
    tokens = unknowns = 0
    found: list[tuple[float, float]] = [(0.0, 0)]
    training = model.training
    model.eval()
    start = time.perf_counter()
    with torch.inference_mode():
        state = None
        for whole in protocol.batches(stream):
            batch = reader.part(whole)
            if not batch.share.counted:
                continue
            unknowns += int((batch.targets == unknown).sum())
            batch = batch.to(model.device)
            if not batch.carry:
                state = model.initial_state(len(batch.inputs))
            hidden, state = model(batch.inputs, state)
            hidden, targets = batch.scored(hidden)
            found.append(model.softmax.score(hidden, targets))
            tokens += len(targets)
        sums = [math.fsum(each) for each in zip(*found, strict=True)]
        nats, hits, scored, unknown_found = reader.sums([*sums, tokens, unknowns])
        tokens, unknowns = int(scored), int(unknown_found)
    seconds = time.perf_counter() - start
    model.train(training)
    characters = stream.characters * tokens / len(stream)
    counted = protocol.counted(stream, tokens)
    return Score(config.protocol, nats, tokens, counted, hits, unknowns, characters, seconds)


def require_scorable(stream: TokenStream, config: EvaluationConfig, name: str) -> None:
    """Raise ``Refused`` if the protocol finds no token to score."""
    least = 3 if config.protocol == "handout" else 2
    longest = len(stream) if config.protocol == "stream" else stream.lengths.max(initial=0)
    require(
        longest >= least,
        f"{name}: no token to score with evaluation.protocol={config.protocol}, which needs "
        f"{least} tokens in a row; the longest text has {longest}",
    )


class Protocol:
    """A way of reading a stream. ``every_position`` says that one pass over a text gives the
    prediction at each of its positions, which is so unless the model reads ahead."""

    def __init__(self, config: EvaluationConfig, every_position: bool) -> None:
        self.config = config
        self.every_position = every_position

    def batches(self, stream: TokenStream) -> Iterator[Batch]:
        raise NotImplementedError

    def counted(self, stream: TokenStream, tokens: int) -> int:
        """The number that the sum of nats is divided by."""
        return tokens


class Stream(Protocol):
    """The whole split as one text: the state is carried from the first token to the last.
    The first token has no context and is not scored.

    The text is cut into columns that are read side by side. Each column but the first reads
    ``WARM_UP`` tokens of the text before it, which brings its state close to that of a model that
    has read everything. One row is exact.

        stream:  a b c d e f g h i j k l m        3 columns, the warm-up in brackets

             a b  c d e f       scores b c d e f g
            (e f) g h i j       scores h i j k
            (i j) k l           scores l m
    """

    def batches(self, stream: TokenStream) -> Iterator[Batch]:
        total = len(stream) - 1
        columns = max(1, min(self.config.rows, (total - WARM_UP) // (10 * WARM_UP)))
        scored = -(-(total - WARM_UP) // columns)  # in each column but the first
        starts = scored * np.arange(columns)
        skipped = np.where(starts > 0, WARM_UP, 0)
        yield from _in_steps(stream, starts, skipped, np.minimum(WARM_UP + scored, total - starts))


class Document(Protocol):
    """Each document alone, many in one batch; its first token is not scored.

    Documents are sorted by length, so that rows of a batch end at nearly the same step.
    """

    def batches(self, stream: TokenStream) -> Iterator[Batch]:
        lengths = stream.lengths - 1
        yield from _openings(stream, np.zeros_like(lengths), lengths, self.config.rows)


class Last(Protocol):
    """The last token of each document, after all of the document before it."""

    def batches(self, stream: TokenStream) -> Iterator[Batch]:
        lengths = stream.lengths - 1
        yield from _openings(stream, lengths - 1, lengths, self.config.rows)


def _openings(
    stream: TokenStream, skipped: Offsets, lengths: Offsets, rows: int
) -> Iterator[Batch]:
    """The first ``lengths`` targets of each document without the ``skipped`` first ones; each
    document is read from its first token."""
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    for first in range(0, len(order), rows):
        chosen = order[first : first + rows]
        starts = np.asarray(stream.offsets[chosen])
        yield from _in_steps(stream, starts, skipped[chosen], lengths[chosen])


def _in_steps(
    stream: TokenStream, starts: Offsets, skip: Offsets, left: Offsets
) -> Iterator[Batch]:
    """Rows that are read side by side from ``starts``, a few steps in each batch. They have
    ``left`` targets each, of which the first ``skip`` are not scored."""
    longest = int(left.max())
    steps = max(1, min(STEPS_AT_ONCE, POSITIONS_AT_ONCE // len(starts)))
    for done in range(0, longest, steps):
        length = min(steps, longest - done)
        yield _padded(stream, starts + done, skip - done, left - done, length, carry=done > 0)


def _padded(
    stream: TokenStream, starts: Offsets, skip: Offsets, left: Offsets, length: int, carry: bool
) -> Batch:
    """``length`` steps of rows that have ``left`` targets each; the first ``skip`` of them and
    all positions after the last are not scored."""
    within = starts[:, None] + np.minimum(np.arange(length + 1), np.maximum(left, 0)[:, None])
    ids = torch.from_numpy(stream.rows(np.minimum(within, len(stream) - 1).reshape(-1), 1))
    ids = ids.reshape(len(starts), length + 1)
    steps = np.arange(length)
    unscored = torch.from_numpy((steps < skip[:, None]) | (steps >= left[:, None]))
    return Batch(ids[:, :-1], ids[:, 1:].masked_fill(unscored, IGNORE), carry)


class Window(Protocol):
    """Every token except the first of a document, each after at most ``context`` tokens of it.

    The first ``context`` predictions of a document need only one pass, because every context is
    the start of the next; each later token has its own window.
    """

    def batches(self, stream: TokenStream) -> Iterator[Batch]:
        context, rows = self.config.context, self.config.rows
        lengths = stream.lengths - 1
        if self.every_position:
            yield from _openings(stream, np.zeros_like(lengths), np.minimum(lengths, context), rows)
        else:
            for known in range(1, context + 1):
                starts = np.asarray(stream.offsets[:-1][lengths >= known])
                for first in range(0, len(starts), rows):
                    yield _window(stream, starts[first : first + rows], known)
        index = WindowIndex(stream, context, skip=1)
        for first in range(0, len(index), rows):
            windows = np.arange(first, min(first + rows, len(index)))
            yield _window(stream, index.starts(windows), context)


def _window(stream: TokenStream, starts: Offsets, length: int) -> Batch:
    ids: Tensor = torch.from_numpy(stream.rows(starts, length + 1))
    return last_target_only(ids[:, :-1], ids[:, -1])


class Handout(Window):
    """The lab's loop, with its off-by-one error: of N tokens it scores w_2 .. w_(N-1), not the last
    one, and divides by N - 1."""

    def batches(self, stream: TokenStream) -> Iterator[Batch]:
        yield from super().batches(_without_last(stream))

    def counted(self, stream: TokenStream, tokens: int) -> int:
        return int(np.maximum(stream.lengths - 1, 0).sum())


def _without_last(stream: TokenStream) -> TokenStream:
    """The stream without the last token of each document."""
    documents = [
        stream.document(index, max(int(length) - 1, 0))
        for index, length in enumerate(stream.lengths)
    ]
    return TokenStream.from_documents(documents, stream.characters)


PROTOCOLS: dict[str, type[Protocol]] = {
    "stream": Stream,
    "document": Document,
    "last": Last,
    "window": Window,
    "handout": Handout,
}
