"""A model and a prefix to text: the prefix is read once, then a token costs one step."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import Vocabulary
from unroll.errors import require
from unroll.generation.config import SamplingConfig
from unroll.models.model import Model
from unroll.models.recurrent import single_steps


@dataclass(frozen=True)
class Sample:
    """A prefix and how it went on."""

    prefix: str
    text: str


@dataclass(frozen=True)
class Samples:
    samples: list[Sample]
    tokens_per_second: float
    unknown: list[str]
    """Words of the prefixes that the vocabulary does not know."""


def sample(
    model: Model,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    prefixes: Sequence[str],
    config: SamplingConfig,
    context: int,
) -> Samples:
    """Continue each prefix ``config.samples`` times.

    ``context`` is how many tokens a bidirectional model reads at each step; the others carry
    their state and do not need it.

    Raises:
        Refused: a prefix holds no token, or the stop token is not in the vocabulary.
    """
    encoded, unknown = encode_prefixes(tokenizer, vocabulary, prefixes, config)
    stop = None if config.stop is None else int(vocabulary.encode([config.stop])[0])
    generator = torch.Generator(model.device).manual_seed(config.seed)
    training = model.training
    model.eval()
    samples, drawn = [], 0
    start = time.perf_counter()
    with torch.inference_mode():
        for prefix, ids in zip(prefixes, encoded, strict=True):
            for row in _continue(model, ids.to(model.device), config, stop, generator, context):
                drawn += len(row)
                samples.append(Sample(prefix, tokenizer.join(vocabulary.decode(row))))
    seconds = time.perf_counter() - start
    model.train(training)
    return Samples(samples, drawn / seconds, unknown)


def encode_prefixes(
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    prefixes: Sequence[str],
    config: SamplingConfig,
) -> tuple[list[Tensor], list[str]]:
    """Ids of each prefix, ``(time,)``, and the words that the vocabulary does not know.

    Raises:
        Refused: a prefix holds no token, or the stop token is not in the vocabulary.
    """
    require(
        config.stop is None or config.stop in vocabulary,
        f"sampling.stop={config.stop!r} is no token of this vocabulary, so nothing would stop",
    )
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
        token = choose(model.softmax.logits(last).float(), config, generator)
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
            with single_steps():
                hidden, state = model(token.unsqueeze(1), state)
        last = hidden[:, -1]
    texts: list[list[int]] = torch.stack(drawn, dim=1).tolist()
    if stop is not None:
        texts = [row[: row.index(stop)] if stop in row else row for row in texts]
    return texts


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
