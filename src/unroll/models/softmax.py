"""Hidden states to loss and to log-probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOGITS_AT_ONCE = 1 << 24
"""Entries of the largest matrix of logits that scoring makes: 64 MB in float32."""


class FullSoftmax(nn.Module):
    """A linear layer and the softmax over the whole vocabulary.

    ``tied`` is the embedding matrix ``(vocabulary, width)`` to share (Press and Wolf 2017).
    """

    def __init__(self, width: int, vocabulary_size: int, tied: nn.Parameter | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(width, vocabulary_size)
        if tied is not None:
            self.linear.weight = tied

    def logits(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to ``(..., vocabulary)``."""
        scores: Tensor = self.linear(hidden)
        return scores

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of ``targets (n,)`` given ``hidden (n, width)``."""
        return F.cross_entropy(self.logits(hidden).float(), targets)

    def score(self, hidden: Tensor, targets: Tensor) -> tuple[float, int]:
        """Sum of ``-log p(target)`` in nats, and how many targets no other token was likelier
        than, for ``targets (n,)`` given ``hidden (n, width)``; logits made a bounded block at a
        time. The largest logit costs a tenth of what finding its place would."""
        rows = max(1, LOGITS_AT_ONCE // self.linear.out_features)
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
