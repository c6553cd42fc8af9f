"""Operations and bytes that a model needs for a word, counted from its shapes, and the limit that
they set on a machine.

A product of matrices costs two operations for each pair of numbers that it multiplies. Only what
cannot be avoided is counted: a backward pass is two more products of the same size; memory is read
for the weights of a step, and for the optimizer's update of them. So no implementation is faster
than the limit, unless weights stay in a cache between two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
FLOAT = 4
"""Bytes of a weight in training."""
UPDATES = {"sgd": 3, "adam": 8}
"""Numbers that an update reads or writes for each weight: weight and gradient, and for Adam its two
means."""


@dataclass(frozen=True)
class Cluster:
    """Tokens whose scores are computed together. A full softmax is one cluster."""

    tokens: int
    share: float = 1.0
    """Of the words for which they are computed."""
    projection: int | None = None
    """Numbers to which a hidden vector is reduced first."""

    def weights(self, width: int) -> int:
        """Weights of the cluster, biases left out."""
        if self.projection is None:
            return width * self.tokens
        return self.projection * (width + self.tokens)


@dataclass(frozen=True)
class Cost:
    """Of one word."""

    operations: float
    bytes: float


@dataclass(frozen=True)
class Shape:
    """The sizes of a recurrent language model."""

    cell: str
    embedding: int
    sizes: Sequence[int]
    """Hidden units of each layer."""
    clusters: Sequence[Cluster]

    @classmethod
    def of(cls, config: Any, clusters: Sequence[Cluster]) -> Shape:
        """The shape of a ``RecurrentConfig``."""
        return cls(config.name, config.embedding_size, config.sizes, clusters)

    @property
    def cell_weights(self) -> int:
        """Weights of all layers, biases left out."""
        inputs = [self.embedding, *self.sizes]
        layers = zip(inputs, self.sizes, strict=False)
        return GATES[self.cell] * sum(size * (below + size) for below, size in layers)

    @property
    def operations(self) -> float:
        """Of one word read and scored."""
        softmax = sum(part.share * part.weights(self.sizes[-1]) for part in self.clusters)
        return 2 * (self.cell_weights + softmax)

    @property
    def weights(self) -> int:
        """Of cell and softmax; of an embedding only the rows of a batch are needed."""
        return self.cell_weights + sum(part.weights(self.sizes[-1]) for part in self.clusters)

    def learning(self, words: int, optimizer: str) -> Cost:
        """A word of an optimizer step over ``words``."""
        return Cost(3 * self.operations, FLOAT * UPDATES[optimizer] * self.weights / words)

    def scoring(self) -> Cost:
        """A word of a text in which many are scored together."""
        return Cost(self.operations, 0.0)

    def writing(self, texts: int, bytes_per_weight: int = FLOAT) -> Cost:
        """A word of one of ``texts`` that are written side by side: a step reads each cluster that
        at least one of them needs."""
        read: float = self.cell_weights
        for part in self.clusters:
            read += (1 - (1 - part.share) ** texts) * part.weights(self.sizes[-1])
        return Cost(self.operations, bytes_per_weight * read / texts)


@dataclass(frozen=True)
class Limit:
    """The largest rate that a machine allows, and what sets it."""

    rate: float
    """Words a second."""
    by: str


def limit(cost: Cost, products: float, bandwidth: float) -> Limit:
    """The limit for a word's cost, with ``products`` in operations and ``bandwidth`` in bytes a
    second."""
    seconds = {"products": cost.operations / products, "memory": cost.bytes / bandwidth}
    by = max(seconds, key=lambda name: seconds[name])
    return Limit(1 / seconds[by], by)
