"""A model and a prefix to text: the prefix is read once, then each token costs one step."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import END, SPECIALS, Vocabulary
from unroll.errors import require
from unroll.generation.config import SamplingConfig
from unroll.models.model import Model

END_ID = SPECIALS.index(END)
NEVER_DRAWN = SPECIALS[:END_ID]
"""The tokens with ids below ``<eos>``: drawn only with ``sampling.allow_special=true``."""


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
    training = model.training
    model.eval()
    with torch.inference_mode():
        found = [
            _continue(model, prefix.to(model.device), config, stop, generator, context)
            for prefix in prefixes
        ]
    model.train(training)
    return found


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


def _continue(
    model: Model,
    prefix: Tensor,
    config: SamplingConfig,
    stop: int | None,
    generator: torch.Generator,
    context: int,
) -> list[list[int]]:
    """``config.samples`` continuations of ``prefix (time,)``, each without its stop token."""
    rows = config.samples
    read = prefix.unsqueeze(0)
    if model.bidirectional:
        read = read[:, -context:]
    hidden, state = model(read, model.initial_state(1))
    last = hidden[:, -1].expand(rows, -1)
    if not model.bidirectional:
        state = model.select(state, torch.zeros(rows, dtype=torch.long, device=prefix.device))
    read = read.expand(rows, -1)
    drawn: list[Tensor] = []
    going = torch.ones(rows, dtype=torch.bool, device=prefix.device)
    for step in range(config.length):
        logits = model.softmax.logits(last).float()
        token = choose(logits if config.allow_special else drawable(logits), config, generator)
        drawn.append(token)
        if stop is not None:
            going &= token != stop
            if not going.any():
                break
        if step + 1 == config.length:
            break
        if model.bidirectional:
            read = torch.cat([read, token.unsqueeze(1)], dim=1)[:, -context:]
            hidden, _ = model(read, model.initial_state(rows))
        else:
            hidden, state = model(token.unsqueeze(1), state)
        last = hidden[:, -1]
    texts: list[list[int]] = torch.stack(drawn, dim=1).tolist()
    if stop is not None:
        texts = [row[: row.index(stop)] if stop in row else row for row in texts]
    return texts


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
