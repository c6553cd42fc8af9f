"""Hidden states to loss and to log-probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.models.config import FullSoftmaxConfig
from unroll.models.precision import Precision

LOGITS_AT_ONCE = 1 << 24
"""Entries of the largest matrix of logits that scoring makes: 64 MB in float32."""


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
        self.linear: nn.Module = nn.Linear(width, vocabulary_size)
        if tied is not None:
            self.linear.weight = tied

    def logits(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to ``(..., vocabulary)``."""
        with self.precision.products(hidden.device):
            scores: Tensor = self.linear(hidden)
        return scores

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of ``targets (n,)`` given ``hidden (n, width)``."""
        return F.cross_entropy(self.logits(hidden).float(), targets)

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[float, int]:
        """Sum of ``-log p(target)`` in nats, and the number of targets that are top-1 correct (no
        other token has a higher probability), for ``targets (n,)`` given ``hidden (n, width)``.

        Logits are made in blocks of ``LOGITS_AT_ONCE`` entries. Taking the largest logit costs a
        tenth of finding its index.
        """
        rows = max(1, LOGITS_AT_ONCE // self.vocabulary_size)
        nats, hits = 0.0, 0
        for part, aims in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True):
            logits = self.logits(part).float()
            nats += F.cross_entropy(logits, aims, reduction="sum").item()
            own = logits.gather(1, aims.unsqueeze(1)).squeeze(1)
            hits += int((own >= logits.amax(dim=-1)).sum())
        return nats, hits

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to log p, ``(..., vocabulary)``, in nats."""
        return torch.log_softmax(self.logits(hidden).float(), dim=-1)

    def replace_linear(self, replacement: Callable[[str], nn.Module]) -> None:
        """Replace each linear layer by ``replacement(name)``, which has the same inputs and
        outputs; ``name`` is its name within this module."""
        self.linear = replacement("linear")
