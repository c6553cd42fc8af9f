"""The adaptive softmax (Grave et al. 2017): frequent tokens cost more, rare ones less.

Ids are sorted by falling frequency, so clusters are ranges of ids: a shortlist of frequent tokens,
and tails of rarer ones. The head is a softmax over the shortlist and one entry for each tail:

    p(token) = p_head(token)                            in the shortlist
    p(token) = p_head(tail) * p_tail(token)             in a tail

All probabilities are exact and sum to one. A tail is computed only for rows that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.errors import Refused, require
from unroll.models.config import AdaptiveSoftmaxConfig
from unroll.models.cross_entropy import Scores, linear_cross_entropy, scores, sum_of
from unroll.models.drawing import draw, find, tempered, uniform
from unroll.models.precision import Precision

ROUNDS = 4
"""Proposals of a draw for each row, before the whole distribution is made."""


class AdaptiveSoftmax(nn.Module):
    """A softmax over a shortlist and tails.

    Tail k, from 1 on, reads the hidden vector projected to ``width / div_value^k`` entries, or the
    hidden vector itself with ``div_value=1``. A tied matrix has rows of full width, so it needs
    ``div_value=1``: shortlist and tails then share its rows, and only the tails' entries in the
    head have weights of their own.

    Args:
        config: where the tails begin, and how narrow they are.
        width: size of a hidden vector.
        vocabulary_size: number of tokens.
        precision: of the products.
        tied: the embedding matrix ``(vocabulary, width)`` to share (Press and Wolf 2017), or None.

    Raises:
        Refused: the cutoffs are not known or not within the vocabulary, or a tied matrix does not
            fit ``div_value``.
    """

    cutoffs: Tensor
    tied: nn.Parameter | None

    def __init__(
        self,
        config: AdaptiveSoftmaxConfig,
        width: int,
        vocabulary_size: int,
        precision: Precision,
        tied: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        require(
            config.cutoffs is not None,
            "model.softmax.cutoffs=null is chosen from the counts of a training text: give "
            "cutoffs, such as model.softmax.cutoffs=[2000,10000]",
        )
        assert config.cutoffs is not None
        require(
            config.cutoffs[-1] < vocabulary_size,
            f"model.softmax.cutoffs={config.cutoffs}: must be below the {vocabulary_size:,} tokens "
            "of the vocabulary; take smaller cutoffs, or model/softmax=full",
        )
        require(
            tied is None or config.div_value == 1,
            f"model.tie_weights=true needs tails of full width, not model.softmax.div_value="
            f"{config.div_value:g}: set model.softmax.div_value=1",
        )
        self.precision = precision
        self._rounded: list[Tensor] | None = None
        self.starts = [0, *config.cutoffs]
        ends = [*config.cutoffs, vocabulary_size]
        self.sizes = [end - start for start, end in zip(self.starts, ends, strict=True)]
        self.tails = range(1, len(self.sizes))
        self.register_buffer("cutoffs", torch.tensor(config.cutoffs), persistent=False)
        self.tail_weight = _uniform(len(self.tails), width, columns=width)
        self.tail_bias = _uniform(len(self.tails), columns=width)
        self.bias = _uniform(vocabulary_size, columns=width)
        self.register_parameter("tied", tied)
        for cluster, size in enumerate(self.sizes):
            narrow = max(1, int(width / config.div_value**cluster))
            if narrow < width:
                matrix = _uniform(narrow, width, columns=width)
                self.register_parameter(f"projection_{cluster}", matrix)
            if tied is None:
                self.register_parameter(f"weight_{cluster}", _uniform(size, narrow, columns=narrow))

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of ``targets (n,)`` given ``hidden (n, width)``: of the
        clusters over all rows, and of each tail over the rows whose target it contains.

        On a GPU the host waits once for each tail, to know the number of these rows.
        """
        count, cluster = len(targets), self._cluster(targets)
        biases, weights = torch.split(self.bias, self.sizes), self._weights()
        entries = torch.where(cluster > 0, self.sizes[0] + cluster - 1, targets)
        with self.precision.products(hidden.device):
            weight = torch.cat([weights[0], self.tail_weight])
            bias = torch.cat([biases[0], self.tail_bias])
            loss = linear_cross_entropy(hidden, weight, bias, entries, count)
            for tail in self.tails:
                rows = (cluster == tail).nonzero().squeeze(1)
                part = self._projected(hidden.index_select(0, rows), tail)
                aims = targets[rows] - self.starts[tail]
                loss = loss + linear_cross_entropy(part, weights[tail], biases[tail], aims, count)
        return loss

    @torch.no_grad()
    def score(self, hidden: Tensor, targets: Tensor) -> tuple[float, int]:
        """Sum of ``-log p(target)`` in nats, and the number of targets that are top-1 correct (no
        other token has a higher probability), for ``targets (n,)`` given ``hidden (n, width)``.

        A tail's own log-probability is an upper bound of those of its tokens. So another tail than
        the target's is computed only where that bound is above the target's log-probability, and
        no token before was.
        """
        if not len(targets):
            return 0.0, 0
        cluster = self._cluster(targets)
        found, gates = self._head(hidden, targets.clamp(max=self.sizes[0] - 1))
        own, best = found.own - found.total, found.largest - found.total
        for tail in self.tails:
            rows = (cluster == tail).nonzero().squeeze(1)
            own[rows], largest = self._tail(hidden, gates, rows, tail, targets[rows])
            best[rows] = torch.maximum(best[rows], largest)
        for tail in self.tails:
            likely = (cluster != tail) & (own >= best) & (gates[:, tail - 1] > own)
            rows = likely.nonzero().squeeze(1)
            anything = torch.full_like(rows, self.starts[tail])
            _, largest = self._tail(hidden, gates, rows, tail, anything)
            best[rows] = torch.maximum(best[rows], largest)
        return -sum_of(own), int((own >= best).sum())

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """``(..., width)`` to log p, ``(..., vocabulary)``, in nats."""
        logits, gates = self._head_logits(hidden)
        head = torch.cat([logits, gates], dim=-1).log_softmax(dim=-1)
        parts = [head[..., : self.sizes[0]]]
        for tail in self.tails:
            gate = head[..., self.sizes[0] + tail - 1, None]
            parts.append(gate + self._tail_logits(hidden, tail).log_softmax(dim=-1))
        return torch.cat(parts, dim=-1)

    def logits(self, hidden: Tensor) -> Tensor:
        """``log_probabilities``, whose softmax is the distribution."""
        return self.log_probabilities(hidden)

    def draw(
        self, hidden: Tensor, temperature: float, never: int, generator: torch.Generator
    ) -> Tensor:
        """One token for each row of ``hidden (n, width)``, ``(n,)``, drawn with probability
        proportional to p^(1/temperature) among the ids from ``never`` on.

        Exact rejection sampling, for temperatures up to 1: the head proposes a token of the
        shortlist, or a tail by p(tail)^(1/temperature). A tail is accepted with probability
        Z = sum of p(token | tail)^(1/temperature), which is at most 1. Rows without a token after
        ``ROUNDS`` proposals, and higher temperatures, draw from the whole distribution.
        """
        found = hidden.new_full((len(hidden),), -1, dtype=torch.long)
        if temperature <= 1:
            logits, gates = self._head_logits(hidden)
            weights = tempered(torch.cat([logits[:, never:], gates], dim=1), temperature)
            for _ in range(ROUNDS):
                left = (found < 0).nonzero().squeeze(1)
                if not len(left):
                    return found
                proposed = never + draw(weights[left], generator)
                found[left] = torch.where(proposed < self.sizes[0], proposed, -1)
                for tail in self.tails:
                    rows = left[proposed == self.sizes[0] + tail - 1]
                    found[rows] = self._drawn(hidden[rows], tail, temperature, generator)
        left = (found < 0).nonzero().squeeze(1)
        logs = self.log_probabilities(hidden[left])[:, never:]
        found[left] = never + draw(tempered(logs, temperature), generator)
        return found

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Within it, the weights are kept in the format of the products, as in ``FullSoftmax``."""
        if self.precision.name == "bfloat16":
            self._rounded = [weight.bfloat16() for weight in self._weights()]
        try:
            yield
        finally:
            self._rounded = None

    def replace_linear(self, replacement: Callable[[str], nn.Module]) -> None:
        """Raise ``Refused``: its matrices are not linear layers that can be replaced."""
        raise Refused(
            "model/softmax=adaptive cannot be converted to int8: take a run with model/softmax=full"
        )

    def _drawn(
        self, hidden: Tensor, tail: int, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """A token of the tail for each row, ``(rows,)``, or -1 with probability 1 - Z."""
        logs = self._tail_logits(hidden, tail).log_softmax(dim=-1)
        chosen = uniform(len(hidden), hidden.device, generator)
        sums = (logs / temperature).exp_().cumsum(dim=-1, dtype=chosen.dtype)
        accepted = (chosen < sums[:, -1:]).squeeze(1)
        return torch.where(accepted, self.starts[tail] + find(sums, chosen), -1)

    def _cluster(self, targets: Tensor) -> Tensor:
        """The cluster of each target: 0 for the shortlist."""
        return torch.bucketize(targets.contiguous(), self.cutoffs, right=True)

    def _weights(self) -> list[Tensor]:
        """The matrix of each cluster."""
        if self._rounded is not None:
            return self._rounded
        if self.tied is not None:
            return list(torch.split(self.tied, self.sizes))
        return [getattr(self, f"weight_{cluster}") for cluster in range(len(self.sizes))]

    def _projected(self, hidden: Tensor, tail: int) -> Tensor:
        """What the tail reads."""
        matrix = getattr(self, f"projection_{tail}", None)
        return hidden if matrix is None else F.linear(hidden, matrix)

    def _tail_logits(self, hidden: Tensor, tail: int) -> Tensor:
        """``(..., width)`` to the logits of a tail, float32."""
        with self.precision.products(hidden.device):
            part = self._projected(hidden, tail)
            return F.linear(
                part, self._weights()[tail], torch.split(self.bias, self.sizes)[tail]
            ).float()

    def _head_logits(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """``(..., width)`` to the logits of the shortlist and of the tails, float32."""
        with self.precision.products(hidden.device):
            shortlist = F.linear(hidden, self._weights()[0], self.bias[: self.sizes[0]])
            return shortlist.float(), F.linear(hidden, self.tail_weight, self.tail_bias).float()

    def _head(self, hidden: Tensor, entries: Tensor) -> tuple[Scores, Tensor]:
        """The scores of ``entries (n,)`` of the shortlist, with the tails in their total; and
        log p of each tail, ``(n, tails)``."""
        with self.precision.products(hidden.device):
            gates = F.linear(hidden, self.tail_weight, self.tail_bias).float()
            found = scores(hidden, self._weights()[0], self.bias[: self.sizes[0]], entries)
        total = torch.logaddexp(found.total, gates.logsumexp(dim=1))
        return found._replace(total=total), gates - total.unsqueeze(1)

    def _tail(
        self, hidden: Tensor, gates: Tensor, rows: Tensor, tail: int, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """log p of ``targets (rows,)``, tokens of the tail, and the tail's largest log p."""
        if not len(rows):
            return gates.new_zeros(0), gates.new_zeros(0)
        with self.precision.products(hidden.device):
            part = self._projected(hidden[rows], tail)
            bias = torch.split(self.bias, self.sizes)[tail]
            found = scores(part, self._weights()[tail], bias, targets - self.starts[tail])
        gate = gates[rows, tail - 1]
        return gate + (found.own - found.total), gate + (found.largest - found.total)


def _uniform(*shape: int, columns: int) -> nn.Parameter:
    """A parameter drawn as PyTorch draws that of a linear layer with ``columns`` inputs."""
    bound = columns**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
