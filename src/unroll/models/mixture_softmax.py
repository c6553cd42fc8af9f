"""The mixture of softmaxes (Yang et al. 2018): several softmaxes over one matrix, and their shares.

    p(token) = sum over k of share_k softmax(W tanh(P_k h + c_k) + b)[token]
    share    = softmax(V h)

The logarithms of a single softmax's probabilities are a matrix of a rank of at most width + 2, over
all hidden vectors and tokens; those of a mixture are not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unroll.errors import Refused
from unroll.models.config import MixtureSoftmaxConfig
from unroll.models.cross_entropy import sum_of
from unroll.models.drawing import FromLogProbabilities
from unroll.models.precision import Precision

LOGITS_AT_ONCE = 1 << 24
"""Logits of all components that are kept at once: 64 MB in float32. Where a loss needs more, it is
taken in blocks of rows, whose logits are made again for the gradient (Chen et al. 2016)."""


class MixtureSoftmax(FromLogProbabilities, nn.Module):
    """A mixture of softmaxes over the whole vocabulary.

    Args:
        config: the number of softmaxes.
        width: size of a hidden vector.
        vocabulary_size: number of tokens.
        precision: of the products.
        tied: the embedding matrix ``(vocabulary, width)`` to share (Press and Wolf 2017), or None.
    """

    def __init__(
        self,
        config: MixtureSoftmaxConfig,
        width: int,
        vocabulary_size: int,
        precision: Precision,
        tied: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.components, self.precision = config.components, precision
        self.linear = nn.Linear(width, vocabulary_size)
        self.latent = nn.Linear(width, config.components * width)
        self.shares = nn.Linear(width, config.components, bias=False)
        if tied is not None:
            self.linear.weight = tied
        self.rows = max(1, LOGITS_AT_ONCE // (config.components * vocabulary_size))

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of ``targets (n,)`` given ``hidden (n, width)``."""
        if len(targets) <= self.rows:
            return self._nats(hidden, targets) / len(targets)
        found = hidden.new_zeros((), dtype=torch.float32)
        for part, aims in self._blocks(hidden, targets):
            found = found + checkpoint(
                self._nats, part, aims, use_reentrant=False, preserve_rng_state=False
            )
        return found / len(targets)

    @torch.no_grad()
    def score(self, hidden: Tensor, targets: Tensor) -> tuple[float, int]:
        """Sum of ``-log p(target)`` in nats, and the number of targets that are top-1 correct (no
        other token has a higher probability), for ``targets (n,)`` given ``hidden (n, width)``."""
        if not len(targets):
            return 0.0, 0
        own, best = [], []
        for part, aims in self._blocks(hidden, targets):
            logs = self.log_probabilities(part)
            own.append(logs.gather(1, aims.unsqueeze(1)).squeeze(1))
            best.append(logs.amax(dim=1))
        found = torch.cat(own)
        return -sum_of(found), int((found >= torch.cat(best)).sum())

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to log p in nats, ``(..., vocabulary)``."""
        vectors, shares = self._components(hidden)
        parts = zip(vectors.unbind(dim=-2), shares.unbind(dim=-1), strict=True)
        found: Tensor | None = None
        for vector, share in parts:
            logs = self._logits(vector).log_softmax(dim=-1) + share.unsqueeze(-1)
            found = logs if found is None else torch.logaddexp(found, logs)
        assert found is not None
        return found

    def replace_linear(self, replacement: Callable[[str], nn.Module]) -> None:
        """Raise ``Refused``: int8 models have one softmax."""
        raise Refused(
            "model/softmax=mixture cannot be converted to int8: take a run with model/softmax=full"
        )

    def _blocks(self, hidden: Tensor, targets: Tensor) -> zip[tuple[Tensor, Tensor]]:
        """Rows and their targets, so many at once that their logits fit into memory."""
        return zip(torch.split(hidden, self.rows), torch.split(targets, self.rows), strict=True)

    def _nats(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum of ``-log p(target)`` of ``targets (n,)`` given ``hidden (n, width)``."""
        vectors, shares = self._components(hidden)
        aims = targets.repeat_interleave(self.components)
        nats = F.cross_entropy(self._logits(vectors.flatten(0, 1)), aims, reduction="none")
        return -(shares - nats.view_as(shares)).logsumexp(dim=1).sum()

    def _components(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """``(..., width)`` to the vector that each softmax reads, ``(..., components, width)``, and
        the logarithms of their shares, ``(..., components)``, float32."""
        with self.precision.products(hidden.device):
            vectors = self.latent(hidden).tanh().unflatten(-1, (self.components, -1))
            return vectors, self.shares(hidden).float().log_softmax(dim=-1)

    def _logits(self, vectors: Tensor) -> Tensor:
        """``(..., width)`` to ``(..., vocabulary)``, float32."""
        with self.precision.products(vectors.device):
            logits: Tensor = self.linear(vectors)
        return logits.float()
