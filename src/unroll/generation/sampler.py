"""A model and prefixes to text: each prefix is read once, then each token costs one step.

All continuations of all prefixes are rows of one batch, so that a step reads the weights once. One
generator draws for all: at each step for every row, in order, also for a row whose text has ended.
So a text depends on the seed and its place in the batch, not on what the other rows write.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import END, SPECIALS, Vocabulary
from unroll.errors import require
from unroll.generation.config import SamplingConfig
from unroll.models.model import Model, Softmax

END_ID = SPECIALS.index(END)
NEVER_DRAWN = SPECIALS[:END_ID]
"""The tokens with ids below ``<eos>``: drawn only with ``sampling.allow_special=true``."""

ROWS_AT_ONCE = 256
"""Texts written side by side, at most: limits the memory for logits."""
CHECK_EVERY = 8
"""Steps between two looks at whether all texts have ended: a device is asked only then."""


@dataclass(frozen=True)
class Sample:
    """A prefix and its continuation."""

    prefix: str
    text: str


@dataclass(frozen=True)
class Samples:
    samples: list[Sample]
    tokens_per_second: float
    unknown: list[str]
    """Words of the prefixes that are not in the vocabulary."""


def sample(
    model: Model,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    prefixes: Sequence[str],
    config: SamplingConfig,
    context: int,
) -> Samples:
    """Continue each prefix ``config.samples`` times.

    ``context`` is the number of tokens that a bidirectional model reads at each step; other
    models carry their state and do not use it.

    Raises:
        Refused: a prefix contains no token, or the stop token can never be drawn.
    """
    encoded, unknown = encode_prefixes(tokenizer, vocabulary, prefixes, config)
    samples, drawn = [], 0
    start = time.perf_counter()
    found = continuations(model, vocabulary, encoded, config, context)
    for prefix, rows in zip(prefixes, found, strict=True):
        for row in rows:
            drawn += len(row)
            samples.append(Sample(prefix, tokenizer.join(vocabulary.decode(row))))
    seconds = time.perf_counter() - start
    return Samples(samples, drawn / seconds, unknown)


def continuations(
    model: Model,
    vocabulary: Vocabulary,
    prefixes: Sequence[Tensor],
    config: SamplingConfig,
    context: int,
) -> list[list[list[int]]]:
    """The ids of ``config.samples`` continuations of each prefix ``(time,)``, without stop tokens.

    Raises:
        Refused: the stop token can never be drawn.
    """
    stop = stop_id(vocabulary, config)
    generator = torch.Generator(model.device).manual_seed(config.seed)
    on_device = [prefix.to(model.device) for prefix in prefixes]
    training = model.training
    model.eval()
    with torch.inference_mode(), model.softmax.drawing():
        batches = (
            _rereading(model, on_device, config, context)
            if model.bidirectional
            else _carrying(model, on_device, config.samples)
        )
        texts = [
            text
            for hidden, read in batches
            for text in _write(model.softmax, hidden, read, config, stop, generator)
        ]
    model.train(training)
    return [texts[first : first + config.samples] for first in range(0, len(texts), config.samples)]


def encode_prefixes(
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    prefixes: Sequence[str],
    config: SamplingConfig,
) -> tuple[list[Tensor], list[str]]:
    """Ids of each prefix, ``(time,)``, and the words that are not in the vocabulary.

    Raises:
        Refused: a prefix contains no token, or the stop token can never be drawn.
    """
    stop_id(vocabulary, config)
    encoded: list[Tensor] = []
    unknown: dict[str, None] = {}
    for prefix in prefixes:
        tokens = tokenizer.tokenize(prefix)
        require(
            tokens,
            f"sampling.prefix={prefix!r} is empty after tokenizing: give at least one word",
        )
        unknown.update(dict.fromkeys(token for token in tokens if token not in vocabulary))
        encoded.append(torch.from_numpy(vocabulary.encode(tokens)).long())
    return encoded, list(unknown)


def stop_id(vocabulary: Vocabulary, config: SamplingConfig) -> int | None:
    """The id of the stop token, if there is one.

    Raises:
        Refused: it can never be drawn.
    """
    if config.stop is None:
        return None
    require(
        config.stop in vocabulary,
        f"sampling.stop={config.stop!r} is not a token of this vocabulary, so nothing would stop",
    )
    require(
        config.allow_special or config.stop not in NEVER_DRAWN,
        f"sampling.stop={config.stop!r} is never drawn with sampling.allow_special=false: use "
        f"sampling.stop={END!r}, or sampling.allow_special=true",
    )
    return int(vocabulary.encode([config.stop])[0])


Read = Callable[[Tensor], Tensor]
"""Reads one more token of each row, ``(rows,)``, and gives the hidden vectors after it, ``(rows,
width)``."""


def _carrying(
    model: Model, prefixes: Sequence[Tensor], samples: int
) -> Iterator[tuple[Tensor, Read]]:
    """The hidden vectors after the prefixes, ``samples`` rows for each, and what reads on."""
    hidden, state = _read(model, prefixes)
    rows = torch.arange(len(prefixes), device=hidden.device).repeat_interleave(samples)
    for batch in torch.split(rows, ROWS_AT_ONCE):
        yield hidden[batch], Carrying(model, model.select(state, batch))


def _read(model: Model, prefixes: Sequence[Tensor]) -> tuple[Tensor, Any]:
    """The hidden vector after each prefix ``(time,)``, and the state; those of the same length are
    read together."""
    order: list[int] = []
    ends, states = [], []
    for length in sorted(set(map(len, prefixes))):
        chosen = [place for place, prefix in enumerate(prefixes) if len(prefix) == length]
        ids = torch.stack([prefixes[place] for place in chosen])
        hidden, state = model(ids, model.initial_state(len(chosen)))
        order += chosen
        ends.append(hidden[:, -1])
        states.append(state)
    back = torch.tensor(order, device=model.device).argsort()
    return torch.cat(ends)[back], model.select(model.join(states), back)


class Carrying:
    """Reads one token at a time and carries the state."""

    def __init__(self, model: Model, state: Any) -> None:
        self.model, self.state = model, state

    def __call__(self, tokens: Tensor) -> Tensor:
        hidden, self.state = self.model(tokens.unsqueeze(1), self.state)
        return hidden[:, -1]


def _rereading(
    model: Model, prefixes: Sequence[Tensor], config: SamplingConfig, context: int
) -> Iterator[tuple[Tensor, Read]]:
    """The same for a bidirectional model, one prefix in each batch."""
    for prefix in prefixes:
        reader = Rereading(model, prefix, config, context)
        yield reader.hidden(), reader


class Rereading:
    """Reads the last ``context`` tokens of each row again at every step."""

    def __init__(self, model: Model, prefix: Tensor, config: SamplingConfig, context: int) -> None:
        self.model, self.context, self.read = model, context, len(prefix)
        self.ids = prefix.new_empty(config.samples, len(prefix) + config.length)
        self.ids[:, : self.read] = prefix

    def __call__(self, tokens: Tensor) -> Tensor:
        self.ids[:, self.read] = tokens
        self.read += 1
        return self.hidden()

    def hidden(self) -> Tensor:
        """The hidden vectors after what was read, ``(rows, width)``."""
        window = self.ids[:, max(0, self.read - self.context) : self.read]
        hidden, _ = self.model(window, self.model.initial_state(len(window)))
        return hidden[:, -1]


def _write(
    softmax: Softmax,
    hidden: Tensor,
    read: Read,
    config: SamplingConfig,
    stop: int | None,
    generator: torch.Generator,
) -> list[list[int]]:
    """The text of each row after ``hidden (rows, width)``, without its stop token."""
    drawn: list[Tensor] = []
    going = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
    for step in range(config.length):
        if step:
            hidden = read(drawn[-1])
        drawn.append(next_tokens(softmax, hidden, config, generator))
        if stop is not None:
            going &= drawn[-1] != stop
            if (step + 1) % CHECK_EVERY == 0 and not going.any():
                break
    texts: list[list[int]] = torch.stack(drawn, dim=1).tolist()
    if stop is not None:
        texts = [row[: row.index(stop)] if stop in row else row for row in texts]
    return texts


def next_tokens(
    softmax: Softmax, hidden: Tensor, config: SamplingConfig, generator: torch.Generator
) -> Tensor:
    """One token for each row of ``hidden (rows, width)``, ``(rows,)``. Where nothing but the
    temperature is set, the softmax draws by itself and need not make all logits."""
    if not config.greedy and config.top_k is None and config.top_p is None:
        never = 0 if config.allow_special else END_ID
        return softmax.draw(hidden, config.temperature, never, generator)
    logits = softmax.logits(hidden).float()
    return choose(logits if config.allow_special else drawable(logits), config, generator)


def drawable(logits: Tensor) -> Tensor:
    """``logits (rows, vocabulary)`` with -inf for the tokens of ``NEVER_DRAWN``, so that the
    softmax divides all probability among the others.

    Where the others have none (an n-gram model without smoothing may expect nothing but
    ``<unk>``), no text can follow: ``<eos>`` gets all of it.
    """
    logits = logits.clone()
    logits[:, :END_ID] = -math.inf
    nothing_left = logits.amax(dim=-1) == -math.inf
    logits[:, END_ID] = logits[:, END_ID].masked_fill(nothing_left, 0)
    return logits


def choose(logits: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    """One token for each row of ``logits (rows, vocabulary)``, ``(rows,)``."""
    if config.greedy:
        return logits.argmax(dim=-1)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / config.temperature
    if config.top_k is not None and config.top_k < logits.shape[-1]:
        least = logits.topk(config.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if config.top_p is not None and config.top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        dropped = (before >= config.top_p).scatter(-1, order, before >= config.top_p)
        logits = logits.masked_fill(dropped, -math.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(1)
