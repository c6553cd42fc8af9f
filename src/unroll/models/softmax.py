"""Hidden states to loss and to log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.models.config import FullSoftmaxConfig
from unroll.models.cross_entropy import Scores, linear_cross_entropy, scores, scores_of, sum_of
from unroll.models.drawing import draw, tempered
from unroll.models.precision import Precision

LOGITS_AT_ONCE = 1 << 24
"""Entries of the largest matrix of logits that is scored where the linear layer was replaced: 64 MB
in float32."""


class FullSoftmax(nn.Module):
    """A linear layer and the softmax over the whole vocabulary.

    Args:
        config: has no values of its own.
        width: size of a hidden vector.
        vocabulary_size: number of tokens.
        precision: of the products.
        tied: the embedding matrix ``(vocabulary, width)`` to share (Press and Wolf 2017), or None.
    """

    def __init__(
        self,
        config: FullSoftmaxConfig,
        width: int,
        vocabulary_size: int,
        precision: Precision,
        tied: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary_size, self.precision = vocabulary_size, precision
        self.linear: Any = nn.Linear(width, vocabulary_size)
        self.replaced = False  # a replacement has no weights: it is asked for whole rows of logits
        if tied is not None:
            self.linear.weight = tied

    def logits(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to ``(..., vocabulary)``."""
        with self.precision.products(hidden.device):
            scores: Tensor = self.linear(hidden)
        return scores

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of ``targets (n,)`` given ``hidden (n, width)``. The matrix of
        all logits is never made."""
        if self.replaced:
            return F.cross_entropy(self.logits(hidden).float(), targets)
        with self.precision.products(hidden.device):
            return linear_cross_entropy(
                hidden, self.linear.weight, self.linear.bias, targets, len(targets)
            )

    @torch.no_grad()
    def score(self, hidden: Tensor, targets: Tensor) -> tuple[float, int]:
        """Sum of ``-log p(target)`` in nats, and the number of targets that are top-1 correct (no
        other token has a higher probability), for ``targets (n,)`` given ``hidden (n, width)``.

        Logits are made in blocks, and the device is asked for the sums once.
        """
        if not len(targets):
            return 0.0, 0
        found = self._scores(hidden, targets)
        nats = sum_of(found.total - found.own)
        return nats, int((found.own >= found.largest).sum())

    def _scores(self, hidden: Tensor, targets: Tensor) -> Scores:
        with self.precision.products(hidden.device):
            if not self.replaced:
                return scores(hidden, self.linear.weight, self.linear.bias, targets)
        rows = max(1, LOGITS_AT_ONCE // self.vocabulary_size)
        parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        found = [scores_of(self.logits(part), aims) for part, aims in parts]
        return Scores(*map(torch.cat, zip(*found, strict=True)))

    def draw(
        self, hidden: Tensor, temperature: float, never: int, generator: torch.Generator
    ) -> Tensor:
        """One token for each row of ``hidden (n, width)``, ``(n,)``, drawn with probability
        proportional to p^(1/temperature) among the ids from ``never`` on."""
        logits = self.logits(hidden)[:, never:].float()
        return never + draw(tempered(logits, temperature), generator)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to log p, ``(..., vocabulary)``, in nats."""
        return torch.log_softmax(self.logits(hidden).float(), dim=-1)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Within it, the weights are kept in the format of the products: rounding them anew for
        each token takes longer than the product."""
        kept = self.linear
        if self.precision.name == "bfloat16" and not self.replaced:
            self.linear = deepcopy(kept).bfloat16()
        try:
            yield
        finally:
            self.linear = kept

    def replace_linear(self, replacement: Callable[[str], nn.Module]) -> None:
        """Replace each linear layer by ``replacement(name)``, which has the same inputs and
        outputs; ``name`` is its name within this module."""
        self.linear, self.replaced = replacement("linear"), True
