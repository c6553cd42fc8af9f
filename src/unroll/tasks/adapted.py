"""The score of a split by a model that adapts to it, or in a mixture with other runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unroll.config import Config
from unroll.data.token_stream import TokenStream
from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import Vocabulary
from unroll.errors import require
from unroll.evaluation.adaptation import Ensemble, mean_squares
from unroll.evaluation.perplexity import Score
from unroll.models.model import Model
from unroll.tasks.run import say
from unroll.tasks.trained import load_run

Streams = Callable[[], Mapping[str, TokenStream]]
"""The splits of the corpus that a model was trained on."""


@dataclass(frozen=True)
class Adapted:
    """A score, and the share of the model and of each run in ``evaluation.mixture``."""

    score: Score
    weights: list[float]
    way: str
    """What adapts: the name of its metrics."""

    def figures(self) -> dict[str, Any]:
        """The figures for a result."""
        return self.score.figures() | {"mixture_weights": self.weights}


def mixed_runs(config: Config, tokenizer: Tokenizer, vocabulary: Vocabulary) -> list[Model]:
    """The models of ``evaluation.mixture``.

    Raises:
        Refused: one cannot be read, or has other tokens.
    """
    plain = replace(config, precision="auto") if config.precision == "int8" else config
    runs = [load_run(reference, plain, []) for reference in config.evaluation.mixture]
    for reference, run in zip(config.evaluation.mixture, runs, strict=True):
        require(
            run.vocabulary.to_json() == vocabulary.to_json()
            and run.tokenizer.to_json() == tokenizer.to_json(),
            f"evaluation.mixture: run {reference} has another vocabulary or tokenizer, so its "
            "probabilities are of other tokens: take runs of the same corpus and tokenizer",
        )
    return [run.model for run in runs]


def require_split(config: Config, streams: Mapping[str, TokenStream]) -> None:
    """Raise ``Refused`` if a mixture is to be fitted without a validation split."""
    fitted = config.evaluation.mixes and config.evaluation.mixture_weights is None
    require(
        not fitted or "valid" in streams,
        "evaluation.mixture is fitted on the validation split, and the corpus has none: set "
        "evaluation.mixture_weights",
    )


def adapted_score(
    model: Model,
    others: Sequence[Model],
    config: Config,
    unknown: int,
    stream: TokenStream,
    own: Streams,
) -> Adapted:
    """Score ``stream`` with a model that adapts, in a mixture with others; their shares are fitted
    on the validation split of ``own`` where they are not given."""
    given, dynamic = config.evaluation.mixture_weights, config.evaluation.dynamic
    squares = []
    if dynamic.learning_rate is not None and dynamic.rule == "rms":
        squares = mean_squares(model, own()["train"])
    ensemble = Ensemble([model, *others], config.evaluation, squares)
    weights = given or [1.0]
    if others and given is None:
        require_split(config, own())
        weights = ensemble.fitted_weights(own()["valid"])
    if others:
        say("shares in the mixture: " + ", ".join(f"{weight:.3f}" for weight in weights))
    return Adapted(ensemble.score(stream, weights, unknown), weights, config.evaluation.adaptation)
