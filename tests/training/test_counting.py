"""Training by counting logs, validates and saves as the training loop does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.evaluation.perplexity import Score, score
from unroll.models.ngram import NGramModel
from unroll.registry import build, names, target
from unroll.training import counting
from unroll.training.counting import Counting

VOCABULARY = 6


def text(length: int = 200) -> TokenStream:
    ids = np.random.default_rng(3).integers(0, VOCABULARY, length)
    return TokenStream.from_documents([ids])


class Diary:
    """Callbacks that keep what they are given, in order."""

    log_every = 1

    def __init__(self, validate: Callable[[], Score | None] = lambda: None) -> None:
        self.entries: list[tuple] = []
        self.validate = validate

    def log(self, figures: dict[str, float], step: int) -> None:
        self.entries.append(("log", step, figures))

    def save(self, name: str, step: int) -> None:
        self.entries.append(("save", step, name))


def learner(config, text: TokenStream, diary: Diary) -> Counting:
    model = NGramModel(config.model, VOCABULARY)
    return target("learner", config.model.name).from_config(config, model, text, diary)


def test_every_model_has_a_learner_that_is_built_from_a_config(composed, stream):
    assert names("learner") == names("model")
    for name in names("learner"):
        config = composed(f"model={name}", "data.batching.batch_size=2")
        model = build("model", config.model, 12)
        made = target("learner", name).from_config(config, model, stream, Diary())
        assert isinstance(made, target("learner", name))
        assert made.model is model


def test_a_trainer_takes_its_settings_from_the_config(composed, stream):
    config = composed(
        "training.clip_norm=0.3", "optimizer.learning_rate=0.07", "data.batching.batch_size=2",
        "data.batching.length=9", "seed=17",
    )  # fmt: skip
    model = build("model", config.model, 12)
    made = target("learner", "lstm").from_config(config, model, stream, Diary())
    assert (made.config, made.seed) == (config.training, 17)
    assert made.optimizer.param_groups[0]["lr"] == 0.07
    assert made.batching.config == config.data.batching


def test_a_text_is_counted_once_and_the_model_kept_as_the_best(composed):
    diary = Diary()
    found = learner(composed("model=ngram"), text(), diary).fit()
    assert (found.epochs, found.steps, found.tokens) == (1.0, 1, 200)
    assert found.seconds > 0
    assert [entry[:2] for entry in diary.entries] == [("log", 1), ("save", 1), ("save", 1)]
    assert [entry[2] for entry in diary.entries[1:]] == ["last", "best"]
    assert found.best_valid is None
    assert found.best_step == 1
    assert found.speed.median == pytest.approx(200 / found.seconds, rel=1e-3)


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_the_training_loss_is_the_score_of_the_training_text(composed, monkeypatch, at_once):
    monkeypatch.setattr(counting, "TOKENS_AT_ONCE", at_once)
    config, diary = composed("model=ngram"), Diary()
    counted = learner(config, text(), diary)
    found = counted.fit()
    expected = score(counted.model, text(), config.evaluation, unknown=0)
    assert found.train_loss == pytest.approx(expected.nats_per_token, rel=1e-5)
    assert diary.entries[0][2]["train/loss"] == found.train_loss
    assert diary.entries[0][2]["train/perplexity"] == pytest.approx(expected.perplexity, rel=1e-5)


def test_the_validation_scores_the_model_that_has_counted(composed):
    config, seen = composed("model=ngram"), []

    def validate() -> Score:
        seen.append(score(counted.model, text(50), config.evaluation, unknown=0))
        return seen[-1]

    counted = learner(config, text(), Diary(validate))
    found = counted.fit()
    assert seen == [found.best_valid]
    assert seen[0].perplexity != pytest.approx(VOCABULARY)
    figures = {key: value for kind, _, what in counted.callbacks.entries if kind == "log"
               for key, value in what.items()}  # fmt: skip
    assert figures["valid/loss"] == seen[0].nats_per_token
    assert figures["valid/perplexity"] == seen[0].perplexity
    assert found.history == {key: [(1, value)] for key, value in figures.items()}


def test_a_text_without_a_pair_of_tokens_is_refused(composed):
    with pytest.raises(Refused, match="1 tokens are too few"):
        learner(composed("model=ngram"), text(1), Diary())
