"""n-gram language models: a text is counted once, and its n-grams are looked up.

The n-grams of each order are kept in a sorted table. The number of an n-gram is its index in that
table. Its key combines the number of all its words but the last with the last word:

    key(a b c) = number(a b) * vocabulary_size + c

so the words seen after a context are neighbours in the table, and neither counting nor looking up
loops over words in Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unroll.models.config import NGramConfig
from unroll.models.drawing import FromLogProbabilities
from unroll.models.smoothing import SMOOTHINGS, Counts, MaximumLikelihood

NOTHING = -1
"""In a context: there is no token at this position. As a number: an n-gram never seen."""
PAST_EVERY_KEY = 2**63 - 1


class NGramModel(nn.Module):
    """p(next token | the last order - 1 tokens), with the interface of a recurrent model.

    Its state is the last order - 1 ids of each row, ``(batch, order - 1)``, and so is its hidden
    vector at each position. Until a text is counted, all tokens have the same probability.
    ``precision`` is accepted as for every model and ignored: there are no products.
    """

    bidirectional = False

    def __init__(
        self, config: NGramConfig, vocabulary_size: int, precision: str = "float32"
    ) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.softmax = NGramTables(config, vocabulary_size)

    @property
    def parameter_count(self) -> int:
        """Number of probabilities and back-off weights in the tables."""
        tables = self.softmax
        return len(tables.unigrams) + sum(
            len(table.shares) + len(table.backoffs) - 2 for table in tables.longer
        )

    @property
    def device(self) -> torch.device:
        return self.softmax.unigrams.device

    def count(self, tokens: npt.NDArray[np.integer[Any]]) -> None:
        """Learn from a text ``(tokens,)``, read as one stream: contexts cross the ends of
        documents, as a carried state does."""
        self.softmax.fill(count_ngrams(tokens, self.config.order, self.vocabulary_size))

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Ids ``(batch, time)`` and a state to contexts ``(batch, time, order - 1)``, each
        ending with the token at its position, and the next state."""
        read = torch.cat([state, inputs], dim=1)
        contexts = read.unfold(1, self.config.order - 1, 1)[:, 1:]
        return contexts, read[:, inputs.shape[1] :]

    def initial_state(self, batch: int) -> Tensor:
        """The state before the first token, for ``batch`` rows."""
        shape = (batch, self.config.order - 1)
        return torch.full(shape, NOTHING, dtype=torch.long, device=self.device)

    def detach(self, state: Tensor) -> Tensor:
        """The state itself: ids have no gradient."""
        return state

    def select(self, state: Tensor, rows: Tensor) -> Tensor:
        """The state of these rows."""
        return state[rows]

    def join(self, states: Sequence[Tensor]) -> Tensor:
        """The state of the rows of all these states, one state after the other."""
        return torch.cat(list(states))


class NGramTables(FromLogProbabilities, nn.Module):
    """Contexts to probabilities; a context never seen backs off to a shorter one.

    ``hidden`` holds ids ``(..., order - 1)`` in reading order, ``NOTHING`` before the first token.
    """

    unigrams: Tensor
    """p(word), ``(vocabulary,)``."""

    def __init__(self, config: NGramConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.smoothing: MaximumLikelihood = SMOOTHINGS[config.smoothing](config, vocabulary_size)
        uniform = torch.full((vocabulary_size,), 1 / vocabulary_size)
        self.register_buffer("unigrams", uniform)
        self.orders = nn.ModuleList(
            Table(vocabulary_size if order == 2 else 0) for order in range(2, config.order + 1)
        )

    @property
    def longer(self) -> list[Table]:
        """The tables of orders 2, 3 and so on."""
        return cast("list[Table]", list(self.orders))

    def fill(self, orders: list[NGramCounts]) -> None:
        """Fill the tables from the counts of each order, the lowest first."""
        device, size = self.unigrams.device, self.vocabulary_size
        contexts = 1  # a single word has one context, the empty one
        lower = np.full(size, 1 / size)
        for order, found in enumerate(orders, start=1):
            counts = found.continuations if self.smoothing.continuations else found.counts
            before = found.keys // size
            if order > 1:
                lower = lower[found.endings]
            shares, backoffs = self.smoothing.estimates(order, counts, before, contexts, lower)
            lower = shares + self.smoothing.interpolated * backoffs[before] * lower
            if order == 1:
                self.unigrams = torch.from_numpy(lower).float().to(device)
            else:
                self.longer[order - 2].fill(found.keys, shares, backoffs, device)
            contexts = len(found.keys)

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[float, float]:
        """Sum of ``-log p(target)`` in nats of ``targets (n,)`` given ``hidden (n, order - 1)``,
        inf if one of them has probability zero; and NaN for the number of top-1 correct ones:
        only the probabilities of the targets are computed."""
        chances = self.unigrams[targets]
        for table, context, present in self._contexts(hidden):
            places = table.find(context, targets, self.vocabulary_size)
            rest = table.backoffs[context] * self.smoothing.lower(chances, self.unigrams[targets])
            if not self.smoothing.interpolated:
                rest = rest.where(places == NOTHING, 0)
            chances = torch.where(present, table.shares[places] + rest, chances)
        return -chances.log().sum().item(), math.nan

    def probabilities(self, hidden: Tensor) -> Tensor:
        """``(..., order - 1)`` to p of every word, ``(..., vocabulary)``."""
        rows = hidden.reshape(math.prod(hidden.shape[:-1]), hidden.shape[-1])
        chances = self.unigrams.expand(len(rows), -1)
        for table, context, present in self._contexts(rows):
            lower = self.smoothing.lower(chances, self.unigrams)
            mixed = table.backoffs[context].unsqueeze(1) * lower
            row, word, share = table.followers(context, self.vocabulary_size)
            if not self.smoothing.interpolated:
                mixed[row, word] = 0
            mixed[row, word] += share
            chances = torch.where(present.unsqueeze(1), mixed, chances)
        return chances.reshape(*hidden.shape[:-1], self.vocabulary_size)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """``(..., order - 1)`` to log p, ``(..., vocabulary)``, in nats; -inf for zero."""
        return self.probabilities(hidden).log()

    def _contexts(self, hidden: Tensor) -> Iterator[tuple[Table, Tensor, Tensor]]:
        """For contexts of one word, two words, and so on: the table of the words that follow
        them, the number of each row's context, and whether the row has such a context."""
        for length, table in enumerate(self.longer, start=1):
            words = hidden[:, -length:].unbind(1)
            context = words[0]
            for part, word in zip(self.longer, words[1:], strict=False):
                context = part.find(context, word, self.vocabulary_size)
            yield table, context, words[0] != NOTHING


class Table(nn.Module):
    """The n-grams of one order, two or more words, sorted by key.

    The last entry of each column is for n-grams never seen, and ``NOTHING``, which is -1, is its
    index: share 0, back-off weight 1.
    """

    keys: Tensor
    """int64, ``(n-grams + 1,)``, increasing."""
    shares: Tensor
    """Share of the last word among the words after the context, ``(n-grams + 1,)``."""
    backoffs: Tensor
    """Probability that a context leaves to the shorter one, ``(contexts + 1,)``."""

    def __init__(self, contexts: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.tensor([PAST_EVERY_KEY]))
        self.register_buffer("shares", torch.zeros(1))
        self.register_buffer("backoffs", torch.ones(contexts + 1))

    def fill(
        self,
        keys: Counts,
        shares: npt.NDArray[np.float64],
        backoffs: npt.NDArray[np.float64],
        device: torch.device,
    ) -> None:
        self.keys = torch.from_numpy(np.append(keys, PAST_EVERY_KEY)).to(device)
        self.shares = torch.from_numpy(np.append(shares, 0)).float().to(device)
        self.backoffs = torch.from_numpy(np.append(backoffs, 1)).float().to(device)

    def find(self, contexts: Tensor, words: Tensor, vocabulary_size: int) -> Tensor:
        """The numbers of the n-grams of these contexts and words, ``NOTHING`` for those never
        seen. A context never seen makes a key below all others."""
        wanted = contexts * vocabulary_size + words
        places = torch.searchsorted(self.keys, wanted)
        return torch.where(self.keys[places] == wanted, places, NOTHING)

    def followers(self, contexts: Tensor, vocabulary_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """All words seen after these contexts ``(rows,)``: row, word and share of each."""
        first = torch.searchsorted(self.keys, contexts * vocabulary_size)
        counts = torch.searchsorted(self.keys, (contexts + 1) * vocabulary_size) - first
        rows = torch.arange(len(contexts), device=contexts.device).repeat_interleave(counts)
        within = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        places = first[rows] + within
        return rows, self.keys[places] % vocabulary_size, self.shares[places]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Resize the columns to the number of n-grams that were saved."""
        for name, column in list(self.named_buffers()):
            if prefix + name in state_dict:
                setattr(self, name, column.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


@dataclass(frozen=True)
class NGramCounts:
    """The n-grams of one order in a text, by increasing key."""

    keys: Counts
    endings: Counts
    """The number of each n-gram without its first word; of a single word its own."""
    counts: Counts
    continuations: Counts
    """The number of different words each was seen after; in the highest order the counts again."""


def count_ngrams(
    tokens: npt.NDArray[np.integer[Any]], order: int, vocabulary_size: int
) -> list[NGramCounts]:
    """The n-grams of each order from 1 to ``order``; the key of a single word is its id."""
    words = tokens.astype(np.int64)
    keys, counts = np.arange(vocabulary_size), np.bincount(words, minlength=vocabulary_size)
    endings, numbers = keys, words  # the latter of the n-gram that ends at each position
    found = []
    for length in range(2, order + 1):
        longer, first, longer_numbers, longer_counts = np.unique(
            numbers[:-1] * vocabulary_size + words[length - 1 :],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        longer_endings = numbers[1:][first]
        continuations = np.bincount(longer_endings, minlength=len(keys))
        found.append(NGramCounts(keys, endings, counts, continuations))
        keys, endings, counts = longer, longer_endings, longer_counts
        numbers = longer_numbers
    return [*found, NGramCounts(keys, endings, counts, counts)]
