"""The progress bar of an epoch, on a terminal only."""

from __future__ import annotations

from tqdm import tqdm

from unroll.evaluation.perplexity import perplexity
from unroll.training.learner import Outcome


class ProgressBar(tqdm):  # type: ignore[misc]
    """A bar over the optimizer steps of an epoch.

    Args:
        epoch, epochs: which one it is, from 1, and how many there are, if that is known.
        total, done: steps of the epoch, and those before this process went on with it.
    """

    def __init__(self, epoch: int, epochs: int | None, total: int, done: int) -> None:
        super().__init__(
            total=total,
            initial=done,
            desc=f"epoch {epoch}" + (f"/{epochs}" if epochs else ""),
            unit="step",
            leave=False,
            disable=None,
        )

    def show(self, outcome: Outcome) -> None:
        """Move on by a step; the figures are those that were read last."""
        self.update()
        if not self.disable:
            loss = outcome.train_loss
            self.set_postfix(
                loss=f"{loss:.3f}",
                ppl=f"{perplexity(loss):.1f}",
                tok_s=f"{outcome.tokens_per_second:,.0f}",
                refresh=False,
            )
