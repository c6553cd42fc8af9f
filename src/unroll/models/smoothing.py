"""Smoothing: how counts become shares of probability, and how much is left to shorter contexts.

With ``kept`` counts, and a ``pseudocount`` added to the total of a context, the estimates of every
smoothing have one form:

    p(word | context) = kept(context, word) / (total(context) + pseudocount)
                      + what that leaves of 1 * p(word | shorter context)

and below a single word stands the uniform distribution, 1 / vocabulary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unroll.models.config import NGramConfig

Counts = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


class MaximumLikelihood:
    """No smoothing: count / total. A word never seen after a context has probability zero. A
    context never seen has no such estimate, so the longest part of it that was seen is taken."""

    continuations = False
    """Whether orders below the highest count the words seen before, not the occurrences."""
    stepwise = True
    """Whether a context backs off to one that is a word shorter, or to none at all."""

    def __init__(self, config: NGramConfig) -> None:
        self.pseudocount = 0.0

    def kept(self, counts: Counts) -> Reals:
        """What is left of the counts ``(n-grams of one order,)``."""
        return counts.astype(np.float64)


class Laplace(MaximumLikelihood):
    """A pseudocount e for every context, spread as single words are (d2l, section 8.3.1):

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
    """What is taken from counts of 1, of 2, and of 3 or more (Chen and Goodman 1998).

    A text too small to estimate them, where no n-gram has one of the counts 1 to 4 or a discount
    would not be above zero, gets half of each count, which is 1.5 of 3.
    """
    n1, n2, n3, n4 = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if min(found) > 0:
            return found
    return 0.5, 1.0, 1.5
