"""The other side: the lab's algorithm and a recurrent language model in plain PyTorch.

Nothing here comes from ``unroll``: PyTorch's modules, float32 unless a context says otherwise, and
the loops as one writes them down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELLS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
OPTIMIZERS: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}

State = Any
Products = AbstractContextManager[object]


class PlainModel(nn.Module):
    """Embedding, recurrent layers, linear layer over the whole vocabulary."""

    def __init__(
        self,
        cell: str,
        vocabulary: int,
        embedding: int,
        hidden: int,
        layers: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        between = dropout if layers > 1 else 0.0
        self.cell = CELLS[cell](embedding, hidden, layers, dropout=between, batch_first=True)
        self.linear = nn.Linear(hidden, vocabulary)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Ids ``(batch, time)`` to hidden ``(batch, time, hidden)`` and the state after them."""
        hidden, state = self.cell(self.dropout(self.embedding(ids)), state)
        return self.dropout(hidden), state

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What training minimises, of logits ``(batch, time, vocabulary)``."""
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


class WeightDrop(nn.Module):
    """A layer of an LSTM whose recurrent matrix is dropped anew in each forward pass."""

    def __init__(self, inputs: int, hidden: int, share: float) -> None:
        super().__init__()
        self.lstm: Any = nn.LSTM(inputs, hidden)
        self.share = share
        self.raw = nn.Parameter(self.lstm.get_parameter("weight_hh_l0").detach())
        del self.lstm.weight_hh_l0

    def forward(self, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
        """``(time, batch, inputs)`` to ``(time, batch, hidden)`` and the state after them."""
        self.lstm.weight_hh_l0 = F.dropout(self.raw, self.share, self.training)
        hidden, state = self.lstm(inputs, state)
        return hidden, state


class PlainAWD(nn.Module):
    """AWD-LSTM (Merity et al. 2018), operation by operation as in its authors' code.

    Args:
        sizes: units of each layer; the last is the width of the embedding, which is tied.
        shares: of words of the embedding, of the embedding, between layers, of the output and of
            recurrent matrices that are dropped.
        penalties: of activations and of their changes.
    """

    def __init__(
        self,
        vocabulary: int,
        sizes: Sequence[int],
        shares: Sequence[float],
        penalties: tuple[float, float],
    ) -> None:
        super().__init__()
        self.words, self.inputs, self.between, self.output, recurrent = shares
        self.penalties = penalties
        self.embedding = nn.Embedding(vocabulary, sizes[-1])
        self.layers = nn.ModuleList(
            WeightDrop(*pair, recurrent) for pair in zip([sizes[-1], *sizes], sizes, strict=False)
        )
        self.linear = nn.Linear(sizes[-1], vocabulary)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.linear.bias)
        self.linear.weight = self.embedding.weight

    def locked(self, values: Tensor, share: float) -> Tensor:
        """``values (time, batch, n)`` with one mask for all steps."""
        if not self.training or not share:
            return values
        mask = values.new_empty(1, *values.shape[1:]).bernoulli_(1 - share) / (1 - share)
        return mask * values

    def forward(self, ids: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Ids ``(batch, time)`` to hidden ``(time, batch, n)`` and the state after them."""
        weight = self.embedding.weight
        if self.training and self.words:
            mask = weight.new_empty(len(weight), 1).bernoulli_(1 - self.words) / (1 - self.words)
            weight = mask.expand_as(weight) * weight
        hidden, after = self.locked(F.embedding(ids.t(), weight), self.inputs), []
        for place, layer in enumerate(self.layers):
            self.raw, last = layer(hidden, None if state is None else state[place])
            after.append(last)
            top = place == len(self.layers) - 1
            hidden = self.locked(self.raw, self.output if top else self.between)
        self.dropped = hidden
        return hidden, tuple(after)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What training minimises, of logits ``(time, batch, vocabulary)``: with the activation
        and the temporal activation penalty."""
        alpha, beta = self.penalties
        activation = self.dropped.pow(2).mean()
        temporal = (self.raw[1:] - self.raw[:-1]).pow(2).mean()
        loss: Tensor = F.cross_entropy(logits.flatten(0, 1), targets.t().flatten())
        loss = loss + alpha * activation + beta * temporal
        return loss


def detached(state: State) -> State:
    """The state as a constant."""
    return tuple(map(detached, state)) if isinstance(state, tuple) else state.detach()


def learn_last_words(
    model: PlainModel, optimizer: torch.optim.Optimizer, windows: Iterable[tuple[Tensor, Tensor]]
) -> int:
    """The lab's training: of each window ``(batch, time)`` the last position predicts its target
    ``(batch,)``. Returns the number of words learned."""
    learned = 0
    for inputs, targets in windows:
        optimizer.zero_grad()
        hidden, _ = model(inputs)
        loss = F.cross_entropy(model.linear(hidden[:, -1]), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
        learned += len(targets)
    return learned


def learn_every_word(
    model: PlainModel | PlainAWD,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    clip: float | None,
    products: Products | None = None,
) -> int:
    """A word language model's training: every position of ``(batch, time)`` predicts its target,
    and the state goes on from batch to batch. Returns the number of words learned.

    Args:
        products: a context for the forward pass, such as autocast.
    """
    learned, state = 0, None
    for inputs, targets in batches:
        optimizer.zero_grad()
        with products or nullcontext():
            hidden, state = model(inputs, state)
            logits = model.linear(hidden)
        loss = model.loss(logits, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        state = detached(state)
        loss.item()
        learned += targets.numel()
    return learned


@torch.no_grad()
def score_by_windows(model: PlainModel, ids: Tensor, context: int) -> float:
    """The lab's scoring loop over ``ids (time,)``: for each word after the first, the window of at
    most ``context`` words before it is read again. Returns the sum of ``-log p`` in nats."""
    nats = 0.0
    for position in range(1, len(ids)):
        window = ids[max(0, position - context) : position].unsqueeze(0)
        hidden, _ = model(window)
        probabilities = F.softmax(model.linear(hidden[:, -1]), dim=-1)
        nats -= probabilities[0, ids[position]].log().item()
    return nats


@torch.no_grad()
def score_in_sequence(model: PlainModel, ids: Tensor, length: int = 1024) -> float:
    """Every word of ``ids (time,)`` after the first, with the state carried, in nats."""
    nats, state = 0.0, None
    for start in range(0, len(ids) - 1, length):
        part = ids[start : start + length + 1]
        hidden, state = model(part[:-1].unsqueeze(0), state)
        nats += F.cross_entropy(model.linear(hidden[0]), part[1:], reduction="sum").item()
    return nats


@torch.no_grad()
def write(model: PlainModel, prefix: Tensor, words: int, temperature: float) -> list[int]:
    """The lab's generator: at every step it reads the last ``len(prefix)`` words again, with the
    state that it carries, and draws the next one."""
    window, state, drawn = prefix.unsqueeze(0), None, []
    for _ in range(words):
        hidden, state = model(window, state)
        probabilities = F.softmax(model.linear(hidden[:, -1]) / temperature, dim=-1)
        token = torch.multinomial(probabilities, 1)
        drawn.append(int(token.item()))
        window = torch.cat([window[:, 1:], token], dim=1)
    return drawn
