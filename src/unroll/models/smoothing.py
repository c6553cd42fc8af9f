"""Smoothing: counts to shares of probability, and to the weight of shorter contexts.

With ``kept`` counts, and a ``pseudocount`` added to the total of a context, the estimates of every
smoothing have one form:

    share(context, word) = kept(context, word) / (total(context) + pseudocount)
    backoff(context)     = 1 - sum of share(context, word) over all words
    p(word | context)    = share(context, word) + backoff(context) * p(word | shorter context)

The empty context backs off to the uniform distribution, 1 / vocabulary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unroll.models.config import NGramConfig

Counts = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


class MaximumLikelihood:
    """No smoothing: count / total. A word never seen after a context has probability zero. For a
    context never seen, the longest part of it that was seen is used."""

    continuations = False
    """Whether orders below the highest count the different words before an n-gram instead of its
    occurrences."""
    stepwise = True
    """Whether a context backs off to the context one word shorter; if not, to the empty one."""

    def __init__(self, config: NGramConfig) -> None:
        self.pseudocount = 0.0

    def kept(self, counts: Counts) -> Reals:
        """The counts ``(n-grams of one order,)`` less what smoothing takes from them."""
        return counts.astype(np.float64)


class Laplace(MaximumLikelihood):
    """A pseudocount e for every context, distributed like single words (d2l, section 8.3.1):

    p(x) = (n(x) + e / m) / (n + e)    p(x | context) = (n(context, x) + e p(x)) / (n(context) + e)
    """

    stepwise = False

    def __init__(self, config: NGramConfig) -> None:
        self.pseudocount = config.pseudocount


class KneserNey(MaximumLikelihood):
    """Interpolated modified Kneser-Ney (Kneser and Ney 1995; Chen and Goodman 1998)."""

    continuations = True

    def kept(self, counts: Counts) -> Reals:
        discounts: Reals = np.array([0.0, *discounts_of(counts)])
        return np.subtract(counts, discounts[np.minimum(counts, 3)])


SMOOTHINGS: dict[str, type[MaximumLikelihood]] = {
    "kneser_ney": KneserNey,
    "laplace": Laplace,
    "none": MaximumLikelihood,
}


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
