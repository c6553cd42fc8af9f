"""What the shortcuts are worth: ``python -m experiments.benchmark``, ratios measured in one run.

Each row times the plain way, as the lab's code goes about it, and ours on the same model and text,
the two in turn, and prints medians and their ratio. Absolute figures are this machine's; the ratios
carry over.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unroll.app import compose
from unroll.config import Config
from unroll.data.token_stream import Encoded, TokenStream, encode
from unroll.evaluation.perplexity import score
from unroll.generation.sampler import sample
from unroll.models.language_model import LanguageModel
from unroll.registry import build
from unroll.tracking.config import MLflowConfig
from unroll.tracking.tracker import MLflowTracker
from unroll.training.learner import Outcome
from unroll.training.loop import Trainer

LAB = ("experiment=lab/lstm", "data=lee_news", "model.hidden_size=256")
ROUNDS = 3
WORDS = 120


def one_word_at_a_time(model: LanguageModel, ids: torch.Tensor, context: int = 100) -> None:
    """The lab's scoring loop: the whole window again for every word."""
    with torch.inference_mode():
        for position in range(1, len(ids) - 1):
            window = ids[max(0, position - context) : position].unsqueeze(0)
            hidden, _ = model(window, model.initial_state(1))
            model.softmax.log_probabilities(hidden[:, -1])[0, ids[position]].item()


def whole_window_again(model: LanguageModel, ids: torch.Tensor, words: int) -> None:
    """The lab's generator: the whole window again at every step, with the carried state."""
    window, state = ids.unsqueeze(0), model.initial_state(1)
    with torch.inference_mode():
        for _ in range(words):
            hidden, state = model(window, state)
            chances = model.softmax.log_probabilities(hidden[:, -1]).exp()
            token = torch.multinomial(chances, 1)
            window = torch.cat([window[:, 1:], token], dim=1)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    name: str, unit: str, amount: int, plain: Callable[[], object], ours: Callable[[], object]
) -> None:
    """Time both ways in turn and print what one is worth against the other."""
    pairs = [(seconds(plain), seconds(ours)) for _ in range(ROUNDS + 1)][1:]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{name:28} {amount / slow:10,.0f} {amount / fast:10,.0f} {unit:16}{slow / fast:8.1f} times"
    )


def scoring(encoded: Encoded, model: LanguageModel) -> None:
    ids = encoded.streams["train"].tokens[: WORDS * 3]
    stream = TokenStream.from_documents([ids])
    evaluation = compose([*LAB, "evaluation.protocol=handout"]).evaluation
    compare(
        "scoring (handout protocol)",
        "words a second",
        len(ids) - 2,
        lambda: one_word_at_a_time(model, torch.from_numpy(ids.astype("int64"))),
        lambda: score(model, stream, evaluation, encoded.vocabulary.unknown),
    )


def generation(encoded: Encoded, model: LanguageModel) -> None:
    ids = encoded.streams["train"].document(0, 100)
    prefix = encoded.tokenizer.join(encoded.vocabulary.decode(ids.tolist()))
    sampling = compose([*LAB, f"sampling.length={WORDS}"]).sampling
    compare(
        "generation (one sample)",
        "words a second",
        WORDS,
        lambda: whole_window_again(model, torch.from_numpy(ids.astype("int64")), WORDS),
        lambda: sample(model, encoded.tokenizer, encoded.vocabulary, [prefix], sampling, 100),
    )


def learning(encoded: Encoded) -> None:
    """Targets a second of the lab's windows, and of every word in sequence."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = {name: learned(encoded, name) for name in ("windows", "sequential")}
        rates = {name: found.tokens_per_second for name, found in outcome.items()}
        print(
            f"{'training (every word learnt)':28} {rates['windows']:10,.0f} "
            f"{rates['sequential']:10,.0f} {'targets a second':16}"
            f"{rates['sequential'] / rates['windows']:8.1f} times"
        )
        tracking = compose([*LAB, f"tracking.directory={folder}"]).tracking
        assert isinstance(tracking, MLflowConfig)
        tracker = MLflowTracker(tracking)
        tracker.start(Path(folder), "benchmark", {}, {})
        figures = dict.fromkeys(("train/loss", "train/perplexity", "grad_norm", "a", "b"), 1.0)
        assert tracker.run_id
        points = 400

        def log_points() -> None:
            for step in range(points):
                tracker.log(figures, step)
            tracker.flush()

        spent = seconds(log_points)
        step = outcome["sequential"].seconds / outcome["sequential"].steps
        share = spent / points / tracker.every / step
        print(
            f"metric logging: {1000 * spent / points / tracker.every:.3f} ms of a step of "
            f"{1000 * step:.0f} ms, {100 * share:.2f}%"
        )
        tracker.finish()


class _Nothing:
    """Callbacks of a training that is only timed."""

    log_every = 10

    def validate(self) -> None:
        return None

    def save(self, name: str, step: int) -> None:
        pass

    def log(self, figures: dict[str, float], step: int) -> None:
        pass


def learned(encoded: Encoded, batching: str) -> Outcome:
    """A training of a few steps."""
    config = compose([*LAB, f"data/batching={batching}", "training.max_steps=8"])
    return Trainer.from_config(
        config, language_model(config, encoded), encoded.streams["train"], _Nothing()
    ).fit()


def language_model(config: Config, encoded: Encoded) -> LanguageModel:
    torch.manual_seed(0)
    made: LanguageModel = build("model", config.model, len(encoded.vocabulary))
    return made


def main() -> None:
    config = compose(LAB)
    encoded = encode(config.data, build("data", config.data))
    model = language_model(config, encoded).eval()
    print(f"{torch.get_num_threads()} threads, vocabulary {len(encoded.vocabulary):,}, two layers")
    print(f"{'':28} {'plain':>10} {'ours':>10}")
    scoring(encoded, model)
    generation(encoded, model)
    learning(encoded)


if __name__ == "__main__":
    main()
