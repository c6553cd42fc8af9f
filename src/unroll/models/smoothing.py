"""Smoothing: counts to shares of probability, and to the weight of shorter contexts.

With ``kept`` counts, and a pseudocount added to the total of a context, the estimates of most
smoothings have one form:

    share(context, word) = kept(context, word) / (total(context) + pseudocount(context))
    backoff(context)     = 1 - sum of share(context, word) over all words
    p(word | context)    = share(context, word) + backoff(context) * p(word | shorter context)

The empty context backs off to the uniform distribution, 1 / vocabulary. ``GoodTuring`` is not
interpolated: a word seen after a context has its share alone, so its backoff is another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unroll.models.config import NGramConfig

Counts = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


class MaximumLikelihood:
    """No smoothing: count / total. A word never seen after a context has probability zero. For a
    context never seen, the longest part of it that was seen is used."""

    continuations = False
    """Whether orders below the highest count the different words before an n-gram instead of its
    occurrences."""
    interpolated = True
    """Whether the shorter context adds to the share of an n-gram. If not, a share is the whole
    probability, and the model backs off only from n-grams that the table does not have."""

    def __init__(self, config: NGramConfig, vocabulary_size: int) -> None:
        self.config, self.vocabulary_size = config, vocabulary_size

    def kept(self, counts: Counts) -> Reals:
        """The counts ``(n-grams of one order,)`` less what smoothing takes from them."""
        return counts.astype(np.float64)

    def pseudocounts(self, counts: Counts, contexts: Counts, number: int) -> Reals | float:
        """What is added to the total of each of ``number`` contexts, given the counts of n-grams
        ``(n-grams of one order,)`` and the context of each, its number."""
        return 0.0

    def estimates(
        self, order: int, counts: Counts, contexts: Counts, number: int, lower: Reals
    ) -> tuple[Reals, Reals]:
        """The share of each n-gram ``(n-grams,)`` of ``order`` words, and the back-off weight of
        each context ``(number,)``; arguments as in ``pseudocounts``, and the probability that the
        shorter context gives the last word of each n-gram."""
        kept = self.kept(counts)
        total = np.bincount(contexts, counts, number) + self.pseudocounts(counts, contexts, number)
        left = total - np.bincount(contexts, kept, number)
        seen = np.maximum(total, np.finfo(float).tiny)  # 0 / 0: all is left over
        return kept / seen[contexts], np.where(total > 0, left / seen, 1)

    def lower(self, shorter: Tensor, single: Tensor) -> Tensor:
        """The distribution that a context backs off to, out of those of the context one word
        shorter and of single words, of one shape or broadcast."""
        return shorter


class Additive(MaximumLikelihood):
    """A pseudocount k for every word after every context, so also after one never seen
    (Chen and Goodman 1999, section 2.1; k = 1 is the rule of Laplace):

    p(x | context) = (n(context, x) + k) / (n(context) + k m), with m words in the vocabulary
    """

    def pseudocounts(self, counts: Counts, contexts: Counts, number: int) -> Reals | float:
        return self.config.pseudocount * self.vocabulary_size

    def lower(self, shorter: Tensor, single: Tensor) -> Tensor:
        return torch.full_like(single, 1 / self.vocabulary_size)


class Laplace(MaximumLikelihood):
    """A pseudocount e for every context, distributed like single words (d2l, section 8.3.1):

    p(x) = (n(x) + e / m) / (n + e)    p(x | context) = (n(context, x) + e p(x)) / (n(context) + e)
    """

    def pseudocounts(self, counts: Counts, contexts: Counts, number: int) -> Reals | float:
        return self.config.pseudocount

    def lower(self, shorter: Tensor, single: Tensor) -> Tensor:
        return single


class WittenBell(MaximumLikelihood):
    """The pseudocount of a context is the number t of different words seen after it, as often as
    something new came after it (Witten and Bell 1991, method C; interpolated as in Chen and
    Goodman 1999, section 2.4):

    p(x | context) = (n(context, x) + t(context) p(x | shorter)) / (n(context) + t(context))
    """

    def pseudocounts(self, counts: Counts, contexts: Counts, number: int) -> Reals | float:
        different: Reals = np.bincount(contexts, np.sign(counts), number).astype(np.float64)
        return different


class GoodTuring(MaximumLikelihood):
    """Back-off with discounts of Good and Turing (Katz 1987). With d of ``discount_ratios``, 1 for
    counts above 5:

    p(x | context) = d n(context, x) / n(context)         if x was seen after the context
                   = backoff(context) p(x | shorter)      if not

    where backoff(context) makes the sum 1. As in SRILM (Stolcke 2002), n-grams of three words or
    more that were seen once count as not seen, and 1 is added to the total of a context all of
    whose counts are above 5, which would leave nothing to other words.
    """

    interpolated = False

    def kept(self, counts: Counts) -> Reals:
        ratios: Reals = np.array([1.0, *discount_ratios(counts), 1.0])
        return np.multiply(counts, ratios[np.minimum(counts, len(ratios) - 1)])

    def estimates(
        self, order: int, counts: Counts, contexts: Counts, number: int, lower: Reals
    ) -> tuple[Reals, Reals]:
        seen = counts > (1 if order >= RARE_DROPPED_FROM else 0)
        kept = np.where(seen, self.kept(counts), 0)
        total = np.bincount(contexts, counts, number)
        used = np.bincount(contexts, kept, number)
        unseen = 1 - np.bincount(contexts, lower * seen, number)
        all_seen = unseen < SMALLEST_REST  # nothing to back off to: what was taken is given back
        total = np.where(all_seen, used, total + (total - used < SMALLEST_REST * total))
        total = np.maximum(total, np.finfo(float).tiny)
        backoffs = (1 - used / total) / np.where(all_seen, 1, unseen)
        return np.where(seen, kept / total[contexts], backoffs[contexts] * lower), backoffs


class KneserNey(MaximumLikelihood):
    """Interpolated modified Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1998)."""

    continuations = True

    def kept(self, counts: Counts) -> Reals:
        discounts: Reals = np.array([0.0, *discounts_of(counts)])
        return np.subtract(counts, discounts[np.minimum(counts, 3)])


SMOOTHINGS: dict[str, type[MaximumLikelihood]] = {
    "additive": Additive,
    "good_turing": GoodTuring,
    "kneser_ney": KneserNey,
    "laplace": Laplace,
    "none": MaximumLikelihood,
    "witten_bell": WittenBell,
}

SMALLEST_REST = 1e-9
"""A smaller share of probability is a rounding error."""
RARE_DROPPED_FROM = 3
"""The order from which on Good-Turing smoothing ignores n-grams seen once."""
LARGEST_DISCOUNTED = 5
"""The largest count that Katz discounts."""


def discount_ratios(counts: Counts) -> list[float]:
    """The shares that counts of 1, 2, ..., k keep, k at most 5 (Katz 1987):

        r* = (r + 1) n(r + 1) / n(r)    d(r) = (r* / r - c) / (1 - c)    c = (k + 1) n(k + 1) / n(1)

    where n(r) n-grams have the count r. In a small text a count may be missing or a share may not
    be above 0 and below 1: then a smaller k is tried, down to 2. If none fits, a count loses 0.5.
    """
    n = np.bincount(counts[counts <= LARGEST_DISCOUNTED + 1], minlength=LARGEST_DISCOUNTED + 2)
    for largest in range(LARGEST_DISCOUNTED, 1, -1):
        if n[1 : largest + 2].min() == 0:
            continue
        common = (largest + 1) * n[largest + 1] / n[1]
        found = [
            float(((r + 1) * n[r + 1] / (r * n[r]) - common) / (1 - common)) if common < 1 else 0.0
            for r in range(1, largest + 1)
        ]
        if min(found) > 0 and max(found) < 1:
            return found
    return [1 - 0.5 / r for r in range(1, LARGEST_DISCOUNTED + 1)]


def discounts_of(counts: Counts) -> tuple[float, float, float]:
    """The discounts of counts of 1, of 2, and of 3 or more (Chen and Goodman 1998).

    They cannot be estimated from a small text, in which no n-gram has one of the counts 1 to 4 or
    a discount would not be above zero. The discounts are then 0.5, 1 and 1.5.
    """
    n1, n2, n3, n4 = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if min(found) > 0:
            return found
    return 0.5, 1.0, 1.5
