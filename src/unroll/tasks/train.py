"""Train a model, score the test split with its best checkpoint, let it write."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unroll.config import Config
from unroll.data.batching import Batching, WindowIndex
from unroll.data.statistics import most_frequent, token_counts
from unroll.data.token_stream import Encoded, encode
from unroll.evaluation.gradient_flow import gradient_flow
from unroll.evaluation.perplexity import Score, require_scorable, score
from unroll.generation.sampler import Samples, sample
from unroll.models.language_model import LanguageModel
from unroll.models.model import Model
from unroll.models.ngram import NGramModel
from unroll.registry import build, target
from unroll.tasks.config import TaskConfig
from unroll.tasks.describe import show_vocabulary
from unroll.tasks.evaluate import figures_line
from unroll.tasks.run import RESULT, Result, Run, device, prepare, say
from unroll.tasks.samples import chosen_prefixes, sample_text, show_samples
from unroll.tracking import ledger
from unroll.tracking.tracker import MLflowTracker, Tracker
from unroll.training import checkpoint
from unroll.training.loop import Learner, Outcome, perplexity

GRADIENT_SEQUENCES = 64
"""Sequences over which the flow of gradients is averaged."""


def train(
    task: TaskConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Train a model, score the test split with its best checkpoint, let it write."""
    run = Run(config, directory, overrides)
    found = run.finished_before(reuse)
    if found:
        return found
    encoded = encode(config.data, build("data", config.data))
    batching: Batching = build("data/batching", config.data.batching)
    show_text(config, encoded, batching)
    prefixes = chosen_prefixes(config, encoded)
    for split in {"valid", "test"} & set(encoded.streams):
        require_scorable(encoded.streams[split], config.evaluation, split)
    prepare(config)
    model: LanguageModel | NGramModel = build("model", config.model, len(encoded.vocabulary)).to(
        device(config)
    )
    writer = CheckpointWriter(run, model, encoded)
    learner: Learner = target("learner", config.model.name)(
        model,
        encoded.streams["train"],
        batching,
        config.training,
        config.optimizer,
        seed=config.seed,
        validate=writer.validator(),
        save=writer.save,
        log=run.tracker,
        log_every=run.tracker.every,
    )
    with run.recorded({"data.vocabulary_size": len(encoded.vocabulary)}, encoded) as tracker:
        writer.log_gradient_flow("initial")
        outcome = learner.fit()
        tracker.param("model.parameters", model.parameter_count)
        if outcome.interrupted:
            say("interrupted: the checkpoint is kept; scoring what there is")
            run.interrupt()
        writer.restore_best()
        writer.log_gradient_flow("trained")
        test = writer.score("test")
        samples = sample(
            model,
            encoded.tokenizer,
            encoded.vocabulary,
            prefixes,
            config.sampling,
            config.data.batching.length,
        )
        result = training_result(run, model, encoded, outcome, test, samples)
        final = {
            f"test/{key}": float(value) for key, value in (test.figures() if test else {}).items()
        }
        result = run.keep(result, final | {"best_step": float(outcome.best_step)}, outcome.steps)
        keep_artifacts(tracker, directory, writer, outcome, samples)
    show_training(model, outcome, test, samples)
    say(f"run {tracker.run_id} ({run.name}): {directory / RESULT}")
    if outcome.interrupted:
        raise KeyboardInterrupt
    return result


class CheckpointWriter:
    """Keeps a model's checkpoints in its run directory, and scores it on its corpus."""

    def __init__(self, run: Run, model: LanguageModel | NGramModel, encoded: Encoded) -> None:
        self.run, self.model, self.encoded, self.config = run, model, encoded, run.config
        self.folder, self.recorded = run.directory / ledger.CHECKPOINTS, False
        config = run.config
        values = asdict(config)
        for key in ("path", "valid_path", "test_path"):  # found again from any folder
            if values["data"].get(key):
                values["data"][key] = os.path.abspath(values["data"][key])
        self.header: dict[str, Any] = {
            "config": values,
            "vocabulary": encoded.vocabulary.to_json(),
            "tokenizer": encoded.tokenizer.to_json(),
        }

    def save(self, name: str, step: int) -> None:
        """Write a checkpoint; with the first one the run can be found by ``run=``."""
        run_id = self.run.tracker.run_id
        path = self.folder / f"{name}.safetensors"
        checkpoint.save(path, self.model, run_id=run_id, step=step, **self.header)
        if not self.recorded:
            store = Path(self.config.tracking.directory)
            ledger.record(store, run_id, self.run.name, self.run.directory, self.run.started)
            self.recorded = True

    def restore_best(self) -> None:
        checkpoint.read(self.folder / ledger.BEST).load(self.model)

    def score(self, split: str) -> Score | None:
        """The split's score, or None where the corpus has no such split."""
        if split not in self.encoded.streams:
            return None
        unknown = self.encoded.vocabulary.unknown
        return score(self.model, self.encoded.streams[split], self.config.evaluation, unknown)

    def log_gradient_flow(self, when: str) -> None:
        """Keep how far back gradients flow, where it was asked for: a curve against k."""
        steps, streams = self.config.evaluation.gradient_steps, self.encoded.streams
        if steps is None:
            return
        stream = streams.get("valid", streams["train"])
        assert isinstance(self.model, LanguageModel)
        norms = gradient_flow(self.model, stream, steps, GRADIENT_SEQUENCES)
        for back, norm in enumerate(norms):
            self.run.tracker.log({f"gradient_flow/{when}": norm}, back)

    def validator(self) -> Any:
        """What scores the validation split, or None where there is none."""
        return (lambda: self.score("valid")) if "valid" in self.encoded.streams else None


def show_text(config: Config, encoded: Encoded, batching: Batching) -> None:
    """Say what is about to be trained on."""
    train, vocabulary = encoded.streams["train"], encoded.vocabulary
    show_vocabulary(vocabulary, most_frequent(token_counts(train, len(vocabulary)), vocabulary))
    for split, stream in encoded.streams.items():
        say(f"{split}: {stream.documents:,} documents, {len(stream):,} tokens")
    steps = batching.steps(train)
    name, rows = config.data.batching.name, config.data.batching.batch_size
    if name == "windows":
        length = config.data.batching.length
        windows = len(WindowIndex(train, length))
        say(f"windows: {windows:,} of {length} tokens, {steps:,} batches of {rows} an epoch")
    else:
        say(f"{name}: {steps:,} batches of {rows} x {config.data.batching.length} an epoch")


def training_result(
    run: Run,
    model: LanguageModel | NGramModel,
    encoded: Encoded,
    outcome: Outcome,
    test: Score | None,
    samples: Samples,
) -> Result:
    valid = outcome.best_valid
    return {
        "config_fingerprint": run.fingerprint,
        "vocabulary_size": len(encoded.vocabulary),
        "parameters": model.parameter_count,
        "epochs": outcome.epochs,
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "best_step": outcome.best_step,
        "interrupted": outcome.interrupted,
        "tokens_per_second": outcome.tokens_per_second,
        "train": {"loss": outcome.train_loss, "perplexity": perplexity(outcome.train_loss)},
        "valid": None if valid is None else {"loss": valid.nats_per_token} | valid.figures(),
        "test": None if test is None else test.figures(),
        "samples": [asdict(item) for item in samples.samples],
    }


def keep_artifacts(
    tracker: Tracker, directory: Path, writer: CheckpointWriter, outcome: Outcome, samples: Samples
) -> None:
    """Config, vocabulary, text and loss curve beside the checkpoints, all of it in the store."""
    (directory / "config.json").write_text(
        json.dumps(writer.header["config"], indent=2, ensure_ascii=False), encoding="utf-8"
    )
    (directory / "vocabulary.json").write_text(writer.header["vocabulary"], encoding="utf-8")
    (directory / "tokenizer.json").write_text(writer.header["tokenizer"], encoding="utf-8")
    (directory / "generated.txt").write_text(sample_text(samples), encoding="utf-8")
    for name in ("config.json", "generated.txt"):
        tracker.log_file(directory / name)
    if isinstance(tracker, MLflowTracker):
        from unroll.report.figures import loss_curve

        loss_curve(outcome.history, directory / "loss_curve.svg")
        tracker.log_file(directory / "loss_curve.svg")
    for name in ("vocabulary.json", "tokenizer.json"):
        tracker.log_file(directory / name, "model")
    tracker.log_file(writer.folder / ledger.BEST, "model")
    tracker.log_file(writer.folder / ledger.LAST, "checkpoints")


def show_training(model: Model, outcome: Outcome, test: Score | None, samples: Samples) -> None:
    say(
        f"trained: {model.parameter_count:,} parameters, {outcome.steps:,} steps, "
        f"{outcome.epochs:.2f} epochs, {outcome.tokens_per_second:,.0f} tokens a second, loss "
        f"{outcome.train_loss:.4f}, perplexity {perplexity(outcome.train_loss):.2f}"
    )
    if outcome.best_valid is not None:
        say(f"valid (best, step {outcome.best_step}): {figures_line(outcome.best_valid)}")
    if test is not None:
        say(f"test: {figures_line(test)}")
    show_samples(samples)
