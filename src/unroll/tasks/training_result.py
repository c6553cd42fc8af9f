"""What a training leaves: its result, its artifacts, and the lines on the terminal."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unroll.config import Config
from unroll.data.batching import Batching, WindowIndex
from unroll.data.statistics import most_frequent, token_counts
from unroll.data.token_stream import Encoded
from unroll.evaluation.perplexity import Score, perplexity
from unroll.generation.sampler import Samples
from unroll.models.model import Model
from unroll.registry import build
from unroll.report.figures import loss_curve
from unroll.tasks.adapted import Adapted
from unroll.tasks.describe import show_vocabulary
from unroll.tasks.evaluate import figures_line
from unroll.tasks.run import Result, Run, say
from unroll.tasks.samples import sample_text, show_samples
from unroll.tracking import ledger, remote
from unroll.training.learner import Outcome


def training_result(
    run: Run,
    model: Model,
    encoded: Encoded,
    outcome: Outcome,
    test: Score | None,
    adapted: Adapted | None,
    samples: Samples,
) -> Result:
    """The content of result.json."""
    valid = outcome.best_valid
    return {
        "config_fingerprint": run.fingerprint,
        "vocabulary_size": len(encoded.vocabulary),
        "parameters": model.parameter_count,
        "epochs": outcome.epochs,
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "skipped_steps": outcome.skipped,
        "best_step": outcome.best_step,
        "interrupted": outcome.interrupted,
        "resumed_at": run.resumed_at,
        "tokens_per_second": outcome.tokens_per_second,
        "speed": outcome.speed._asdict(),
        "train": {"loss": outcome.train_loss, "perplexity": perplexity(outcome.train_loss)},
        "valid": None if valid is None else {"loss": valid.nats_per_token} | valid.figures(),
        "test": None if test is None else test.figures(),
        "adapted": None if adapted is None else adapted.figures(),
        "samples": [asdict(item) for item in samples.samples],
    }


def pruned_result(run: Run, outcome: Outcome) -> Result:
    """The content of result.json of a training that was pruned, which is said in a line."""
    valid = outcome.best_valid
    assert valid is not None, "only a validation can prune"
    say(
        f"pruned after step {outcome.steps:,}, because other trials do better: best validation "
        f"loss {valid.nats_per_token:.4f}"
    )
    return {
        "config_fingerprint": run.fingerprint,
        "pruned": True,
        "resumed_at": run.resumed_at,
        "epochs": outcome.epochs,
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "valid": {"loss": valid.nats_per_token} | valid.figures(),
    }


def final_figures(
    outcome: Outcome, test: Score | None, adapted: Adapted | None
) -> dict[str, float]:
    """The metrics that are logged once, at the end."""
    figures: dict[str, float] = {} if test is None else dict(test.figures())
    if adapted is not None:
        figures |= {f"{adapted.way}/{key}": value for key, value in adapted.score.figures().items()}
    return {
        **{f"test/{key}": float(value) for key, value in figures.items()},
        **{f"speed/{key}": value for key, value in outcome.speed._asdict().items()},
        "best_step": float(outcome.best_step),
    }


def keep_artifacts(run: Run, header: dict[str, Any], outcome: Outcome, samples: Samples) -> None:
    """Write text and loss curve into the run directory, and all artifacts to the store."""
    directory, tracker = run.directory, run.tracker
    tracker.log_file(directory / ledger.CONFIG)
    for name, text, folder in (
        ("generated.txt", sample_text(samples), None),
        ("vocabulary.json", header["vocabulary"], "model"),
        ("tokenizer.json", header["tokenizer"], "model"),
    ):
        (directory / name).write_text(text, encoding="utf-8")
        tracker.log_file(directory / name, folder)
    loss_curve(outcome.history, directory / "loss_curve.svg")
    tracker.log_file(directory / "loss_curve.svg")
    checkpoints: Path = directory / ledger.CHECKPOINTS
    tracker.log_file(checkpoints / ledger.BEST, remote.FOLDER)
    tracker.tag(remote.DIGEST, remote.sha256(checkpoints / ledger.BEST))
    tracker.log_file(checkpoints / ledger.LAST, "checkpoints")


UNKNOWN_SHARE = 0.01
"""A larger share of unknown tokens in held-out text is worth a warning if none was learned."""


def show_text(config: Config, encoded: Encoded) -> None:
    """Print the vocabulary, the splits and the batches before training.

    Raises:
        Refused: the training split is too short for one batch.
    """
    train, vocabulary = encoded.streams["train"], encoded.vocabulary
    batching: Batching = build("data/batching", config.data.batching)
    show_vocabulary(vocabulary, most_frequent(token_counts(train, len(vocabulary)), vocabulary))
    for split, stream in encoded.streams.items():
        say(f"{split}: {stream.documents:,} documents, {len(stream):,} tokens")
    steps = batching.steps(train)
    name, rows = config.data.batching.name, config.data.batching.batch_size
    length = config.data.batching.length
    if name == "windows":
        windows = len(WindowIndex(train, length))
        say(f"windows: {windows:,} of {length} tokens, {steps:,} batches of {rows} per epoch")
    else:
        say(f"{name}: {steps:,} batches of {rows} x {length} per epoch")


def warn_of_unknown(encoded: Encoded) -> None:
    """Print a line to standard error if the training split has no ``<unk>``, which is then never
    learned, but a held-out split has many."""
    vocabulary = encoded.vocabulary
    shares = {
        split: int(token_counts(stream, len(vocabulary))[vocabulary.unknown]) / len(stream)
        for split, stream in encoded.streams.items()
    }
    held_out, share = max(shares.items(), key=lambda item: item[1])
    if shares["train"] == 0 and share > UNKNOWN_SHARE:
        print(
            f"unroll: {share:.1%} of the {held_out} tokens are <unk>, but no training token is, so "
            "a model cannot learn to predict it: set data.vocabulary.min_frequency=2, or "
            "data/tokenizer=subword, which has no unknown tokens",
            file=sys.stderr,
            flush=True,
        )


def show_training(
    model: Model,
    outcome: Outcome,
    test: Score | None,
    adapted: Adapted | None,
    samples: Samples,
) -> None:
    """Print the figures and the generated text."""
    say(
        f"trained: {model.parameter_count:,} parameters, {outcome.steps:,} steps, "
        f"{outcome.epochs:.2f} epochs, {outcome.tokens_per_second:,.0f} tokens a second, loss "
        f"{outcome.train_loss:.4f}, perplexity {perplexity(outcome.train_loss):.2f}"
    )
    if outcome.best_valid is not None:
        say(f"valid (best, step {outcome.best_step}): {figures_line(outcome.best_valid)}")
    if test is not None:
        say(f"test: {figures_line(test)}")
    if adapted is not None:
        say(f"test with {adapted.way}: {figures_line(adapted.score)}")
    show_samples(samples)
