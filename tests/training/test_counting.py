"""Training by counting reports, validates and keeps as the training loop does."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.evaluation.perplexity import Score, score
from unroll.models.ngram import NGramModel
from unroll.registry import build, names, target
from unroll.training import counting
from unroll.training.counting import Counting
from unroll.training.loop import Trainer

VOCABULARY = 6


def stream(length: int = 200) -> TokenStream:
    ids = np.random.default_rng(3).integers(0, VOCABULARY, length)
    return TokenStream.from_documents([ids])


class Diary:
    """What happened, in its order: points logged, checkpoints saved, validations."""

    def __init__(self) -> None:
        self.entries: list[tuple] = []

    def log(self, figures: dict[str, float], step: int) -> None:
        self.entries.append(("log", step, figures))

    def save(self, name: str, step: int) -> None:
        self.entries.append(("save", step, name))


def learner(config, text: TokenStream, diary: Diary, validate=None) -> Counting:
    return target("learner", config.model.name)(
        NGramModel(config.model, VOCABULARY),
        text,
        build("data/batching", config.data.batching),
        config.training,
        config.optimizer,
        seed=1,
        validate=validate,
        save=diary.save,
        log=diary,
        log_every=1,
    )


def test_every_model_has_a_learner_and_all_are_made_alike():
    assert names("learner") == names("model")
    made = [inspect.signature(target("learner", name)).parameters for name in names("learner")]
    plain = list(inspect.signature(Trainer).parameters)
    assert all(list(one) == plain for one in made)


def test_a_text_is_counted_once_and_the_model_kept_as_the_best(composed):
    diary = Diary()
    found = learner(composed("model=ngram"), stream(), diary).fit()
    assert (found.epochs, found.steps, found.tokens) == (1.0, 1, 200)
    assert found.seconds > 0
    assert [entry[:2] for entry in diary.entries] == [("log", 1), ("save", 1), ("save", 1)]
    assert [entry[2] for entry in diary.entries[1:]] == ["last", "best"]
    assert found.best_valid is None
    assert found.best_step == 1


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_the_training_loss_is_the_score_of_the_training_text(composed, monkeypatch, at_once):
    monkeypatch.setattr(counting, "TOKENS_AT_ONCE", at_once)
    config, diary = composed("model=ngram"), Diary()
    counted = learner(config, stream(), diary)
    found = counted.fit()
    expected = score(counted.model, stream(), config.evaluation, unknown=0)
    assert found.train_loss == pytest.approx(expected.nats_per_token, rel=1e-5)
    assert diary.entries[0][2]["train/loss"] == found.train_loss
    assert diary.entries[0][2]["train/perplexity"] == pytest.approx(expected.perplexity, rel=1e-5)


def test_the_validation_scores_the_model_that_has_counted(composed):
    config, diary, seen = composed("model=ngram"), Diary(), []

    def validate() -> Score:
        seen.append(score(counted.model, stream(50), config.evaluation, unknown=0))
        return seen[-1]

    counted = learner(config, stream(), diary, validate)
    found = counted.fit()
    assert seen == [found.best_valid]
    assert seen[0].perplexity != pytest.approx(VOCABULARY)
    figures = {key: value for kind, _, what in diary.entries if kind == "log"
               for key, value in what.items()}  # fmt: skip
    assert figures["valid/loss"] == seen[0].nats_per_token
    assert figures["valid/perplexity"] == seen[0].perplexity
    assert found.history == {key: [(1, value)] for key, value in figures.items()}


def test_a_text_without_a_pair_of_tokens_is_refused(composed):
    with pytest.raises(Refused, match="1 tokens are too few"):
        learner(composed("model=ngram"), stream(1), Diary())
