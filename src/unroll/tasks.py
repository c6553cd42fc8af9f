"""The tasks: train, sample, evaluate. Each reads like a recipe."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unroll.config import CHECKOUT, Config, TaskConfig, fingerprint, flat
from unroll.data.batching import Batching, WindowIndex
from unroll.data.config import CorpusConfig, TextFilesConfig
from unroll.data.corpus import TextFiles
from unroll.data.text_reader import expand
from unroll.data.token_stream import Encoded, encode
from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.evaluation.perplexity import Score, require_scorable, score
from unroll.generation.sampler import Samples, encode_prefixes, sample
from unroll.models.language_model import LanguageModel
from unroll.registry import Refused, build, require, restore
from unroll.tracking import ledger
from unroll.tracking.store import MLflowTracker, Tracker
from unroll.training import checkpoint
from unroll.training.loop import Outcome, Trainer, perplexity

Result = dict[str, Any]

RESULT = "result.json"
UNNAMED = ("tracking", "hydra", "data.path", "data.cache", "threads")
"""Overrides that a run's name leaves out."""


def train(
    task: TaskConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Train a model, score the test split with its best checkpoint, let it write."""
    encoded = encode(config.data, build("data", config.data))
    batching: Batching = build("data/batching", config.data.batching)
    describe(config, encoded, batching)
    prefixes = chosen_prefixes(config, encoded)
    for split in {"valid", "test"} & set(encoded.streams):
        require_scorable(encoded.streams[split], config.evaluation, split)
    prepare(config)
    model = LanguageModel(config.model, len(encoded.vocabulary)).to(device(config))
    say(f"model: {config.model.name}, {model.parameter_count:,} parameters")

    tracker: Tracker = build("tracking", config.tracking)
    mark = fingerprint(config, encoded.corpus_fingerprint)
    if reuse and isinstance(tracker, MLflowTracker):
        found = tracker.reuse(mark)
        if found:
            say(f"run {found} has finished with this very config: not run again (rerun=true would)")
            return {"task": "train", "run_id": found, "reused": True}
    require_empty(directory)
    name = run_name(config, overrides)
    keeper = Keeper(directory, model, encoded, tracker, name, config)
    trainer = Trainer(
        model,
        encoded.streams["train"],
        batching,
        config.training,
        config.optimizer,
        seed=config.seed,
        validate=keeper.validator(),
        save=keeper.save,
        log=tracker,
        log_every=tracker.every,
    )
    params = flat(config) | {"model.parameters": model.parameter_count}
    params["data.vocabulary_size"] = len(encoded.vocabulary)
    tags = {
        "git_commit": git_commit(),
        "corpus_fingerprint": encoded.corpus_fingerprint,
        "config_fingerprint": mark,
        "overrides": " ".join(overrides),
        "directory": str(directory.resolve()),
    }
    tracker.start(name, params, tags)
    try:
        say(f"run: {name} in {directory}")
        outcome = trainer.fit()
        if outcome.interrupted:
            say("interrupted: the checkpoint is kept; scoring what there is")
            tracker.tag("interrupted", "true")
        keeper.restore_best()
        test = keeper.score("test")
        samples = sample(
            model,
            encoded.tokenizer,
            encoded.vocabulary,
            prefixes,
            config.sampling,
            config.data.batching.length,
        )
        result = training_result(tracker.run_id, mark, model, encoded, outcome, test, samples)
        final = {
            f"test/{key}": float(value) for key, value in (test.figures() if test else {}).items()
        }
        tracker.log(final | {"best_step": float(outcome.best_step)}, outcome.steps)
        write_result(directory, result)
        keep_artifacts(tracker, directory, keeper, outcome, samples)
        tracker.finish()
    except BaseException as error:
        tracker.tag("failure", " ".join(f"{type(error).__name__}: {error}".split())[:500])
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    show_training(outcome, test, samples)
    say(f"run {tracker.run_id} ({name}): {directory / RESULT}")
    if outcome.interrupted:
        raise KeyboardInterrupt
    return result


def evaluate(
    task: TaskConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Score a split, or a text file, with a trained run."""
    require_empty(directory)
    trained = load_run(config, overrides)
    encoded = trained.encode(config, overrides)
    split = "text" if config.evaluation.text else config.evaluation.split
    require(
        split in encoded.streams,
        f"evaluation.split={split}: this run's corpus has no such split, only "
        f"{', '.join(encoded.streams)}",
    )
    found = score(
        trained.model, encoded.streams[split], config.evaluation, trained.vocabulary.unknown
    )
    result: Result = {"task": "evaluate", "run_id": trained.run_id, "protocol": found.protocol}
    result |= found.figures() | {"tokens_per_second": found.tokens_per_second}
    tracker: Tracker = build("tracking", config.tracking)
    if tracker.resume(trained.run_id):
        tracker.log(
            {
                f"{split}/{found.protocol}/{key}": float(value)
                for key, value in found.figures().items()
            },
            trained.step,
        )
        tracker.finish()
    write_result(directory, result)
    say(f"{split} under {found.protocol}: {figures_line(found)}")
    return result


def write(
    task: TaskConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Let a trained run go on from a prefix."""
    require_empty(directory)
    trained = load_run(config, overrides)
    prefixes = config.sampling.prefixes
    if prefixes is None:
        prefixes = default_prefixes(config, trained.encode(config, overrides))
    found = sample(
        trained.model,
        trained.tokenizer,
        trained.vocabulary,
        prefixes,
        config.sampling,
        trained.data.batching.length,
    )
    result: Result = {"task": "sample", "run_id": trained.run_id}
    result |= {"samples": [asdict(item) for item in found.samples]}
    result |= {"tokens_per_second": found.tokens_per_second}
    tracker: Tracker = build("tracking", config.tracking)
    if tracker.resume(trained.run_id):
        tracker.log_text(
            sample_text(found), f"samples/{directory.parent.name}-{directory.name}.txt"
        )
        tracker.finish()
    write_result(directory, result)
    show_samples(found)
    return result


@dataclass(frozen=True)
class Trained:
    """A run that was trained before: the model as it was, and what turned text into its ids."""

    run_id: str
    step: int
    model: LanguageModel
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    data: CorpusConfig

    def encode(self, config: Config, overrides: list[str]) -> Encoded:
        """The text that the command line names, else the run's own corpus, in the run's ids."""
        if config.evaluation.text is not None:
            expand(config.evaluation.text, "evaluation.text")
            text = text_config(config.evaluation.text, self.data, config.data)
            found = encode(text, TextFiles(text), self.tokenizer, self.vocabulary)
            return replace(found, streams={"text": found.streams["train"]})
        named = any(word.startswith("data=") for word in overrides)
        data = config.data if named else self.data
        data = replace(data, tokenizer=self.data.tokenizer, cache=config.data.cache)
        return encode(data, build("data", data), self.tokenizer, self.vocabulary)


def load_run(config: Config, overrides: list[str]) -> Trained:
    """The run that ``run=`` names.

    Raises:
        Refused: there is none, its checkpoint is damaged, or the command line asks for a model
            or tokenizer of its own.
    """
    for word in overrides:
        key = word.lstrip("+").partition("=")[0]
        require(
            not key.startswith(("model", "data/tokenizer", "data.tokenizer", "data.vocabulary")),
            f"{word} has no meaning for task={config.task.name}: model, tokenizer and vocabulary "
            "come from the run; leave it out",
        )
        require(
            not key.startswith("data.") or key == "data.cache" or "data=" in " ".join(overrides),
            f"{word} has no meaning without data=: the corpus comes from the run too, unless "
            "another one is named",
        )
    assert config.run is not None
    path = ledger.find_checkpoint(Path(config.tracking.directory), config.run)
    found = checkpoint.read(path)
    try:
        model_config = restore("model", found.config["model"])
        data: CorpusConfig = restore("data", found.config["data"])
        vocabulary = Vocabulary.from_json(found.vocabulary)
        tokenizer: Tokenizer = build("data/tokenizer", data.tokenizer)
        tokenizer.restore(found.tokenizer)
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"checkpoint {path} is damaged, or of another version: {error}") from error
    prepare(config)
    model = LanguageModel(model_config, len(vocabulary))
    found.load(model)
    model.to(device(config))
    return Trained(found.run_id, found.step, model, tokenizer, vocabulary, data)


def text_config(path: str, trained: CorpusConfig, given: CorpusConfig) -> TextFilesConfig:
    """A corpus of one text, to score whole. Where the run ends documents with ``<eos>``, a line
    of the text is a document; else the file is one."""
    shared = {
        key: getattr(trained, key) for key in CorpusConfig.__dataclass_fields__ if key != "name"
    }
    shared |= {"cache": given.cache, "limit": None, "valid_fraction": 0.0, "test_fraction": 0.0}
    return TextFilesConfig(
        name="text_files",
        path=path,
        valid_path=None,
        test_path=None,
        document="line" if trained.append_eos else "file",
        encoding=getattr(given, "encoding", "utf-8"),
        text_column=getattr(given, "text_column", "text"),
        **shared,
    )


class Keeper:
    """Keeps a model's checkpoints in its run directory, and scores it on its corpus."""

    def __init__(
        self,
        directory: Path,
        model: LanguageModel,
        encoded: Encoded,
        tracker: Tracker,
        name: str,
        config: Config,
    ) -> None:
        self.model, self.encoded, self.config = model, encoded, config
        self.directory, self.tracker, self.name = directory, tracker, name
        self.folder, self.recorded = directory / ledger.CHECKPOINTS, False
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
        run_id = self.tracker.run_id
        path = self.folder / f"{name}.safetensors"
        checkpoint.save(path, self.model, run_id=run_id, step=step, **self.header)
        if not self.recorded:
            store = Path(self.config.tracking.directory)
            ledger.record(store, run_id, self.name, self.directory)
            self.recorded = True

    def restore_best(self) -> None:
        checkpoint.read(self.folder / ledger.BEST).load(self.model)

    def score(self, split: str) -> Score | None:
        """The split's score, or None where the corpus has no such split."""
        if split not in self.encoded.streams:
            return None
        unknown = self.encoded.vocabulary.unknown
        return score(self.model, self.encoded.streams[split], self.config.evaluation, unknown)

    def validator(self) -> Any:
        """What scores the validation split, or None where there is none."""
        return (lambda: self.score("valid")) if "valid" in self.encoded.streams else None


def require_empty(directory: Path) -> None:
    """Raise ``Refused`` where the run directory holds a run: it would be lost."""
    taken = [name for name in (ledger.CHECKPOINTS, RESULT) if (directory / name).exists()]
    require(
        not taken,
        f"hydra.run.dir={directory} holds a run already ({', '.join(taken)}): name another "
        "folder, or leave hydra.run.dir out",
    )


def prepare(config: Config) -> None:
    """Seed every generator, and take the threads that were asked for."""
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    if config.threads is not None:
        torch.set_num_threads(config.threads)


def device(config: Config) -> torch.device:
    """The device asked for, or with ``auto`` the fastest there is.

    Raises:
        Refused: there is no such device here.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if config.device == "auto":
        return torch.device(next(name for name, usable in there.items() if usable))
    usable = ", ".join(name for name in there if there[name])
    require(there[config.device], f"device={config.device} is not to be had here: {usable} is")
    return torch.device(config.device)


def describe(config: Config, encoded: Encoded, batching: Batching) -> None:
    """Say what is about to be trained on."""
    vocabulary = encoded.vocabulary
    first = vocabulary.tokens[len(SPECIALS) : len(SPECIALS) + 10]
    listed = ", ".join(
        f"{token!r} {position}" for position, token in enumerate(first, start=len(SPECIALS))
    )
    say(f"vocabulary: {len(vocabulary):,} tokens; the most frequent: {listed}")
    for split, stream in encoded.streams.items():
        say(f"{split}: {stream.documents:,} documents, {len(stream):,} tokens")
    steps = batching.steps(encoded.streams["train"])
    name, rows = config.data.batching.name, config.data.batching.batch_size
    if name == "windows":
        length = config.data.batching.length
        windows = len(WindowIndex(encoded.streams["train"], length))
        say(f"windows: {windows:,} of {length} tokens, {steps:,} batches of {rows} an epoch")
    else:
        say(f"{name}: {steps:,} batches of {rows} x {config.data.batching.length} an epoch")


def chosen_prefixes(config: Config, encoded: Encoded) -> list[str]:
    """The prefixes to go on from, looked at before anything is trained.

    Raises:
        Refused: one is empty after tokenizing, or the stop token does not exist.
    """
    prefixes = config.sampling.prefixes or default_prefixes(config, encoded)
    encode_prefixes(encoded.tokenizer, encoded.vocabulary, prefixes, config.sampling)
    return prefixes


def default_prefixes(config: Config, encoded: Encoded) -> list[str]:
    """The first words of the first test documents (of training ones, where none were held out)."""
    streams = encoded.streams
    stream = streams.get("test") or streams.get("valid") or streams["train"]
    count = min(config.sampling.prefix_documents, stream.documents)
    ids = [stream.document(index, config.sampling.prefix_length) for index in range(count)]
    return [
        encoded.tokenizer.join(encoded.vocabulary.decode(row.tolist())) for row in ids if len(row)
    ]


def run_name(config: Config, overrides: list[str]) -> str:
    """Data, model, and what else the command line says, in a name without spaces."""
    given = getattr(config.tracking, "run_name", None)
    if given:
        return str(given)
    said = [config.data.name, config.model.name]
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key in ("model", "data", "task") or key.startswith(UNNAMED):
            continue
        said.append(f"{key.rpartition('.')[2].rpartition('/')[2]}={value}")
    return "-".join("_".join(part.split()) for part in said)[:120]


def git_commit() -> str:
    """The checkout's commit, or 'unknown' outside of one."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


def training_result(
    run_id: str,
    mark: str,
    model: LanguageModel,
    encoded: Encoded,
    outcome: Outcome,
    test: Score | None,
    samples: Samples,
) -> Result:
    valid = outcome.best_valid
    return {
        "task": "train",
        "run_id": run_id,
        "config_fingerprint": mark,
        "vocabulary_size": len(encoded.vocabulary),
        "parameters": model.parameter_count,
        "epochs": outcome.epochs,
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "interrupted": outcome.interrupted,
        "tokens_per_second": outcome.tokens_per_second,
        "train": {"loss": outcome.train_loss, "perplexity": perplexity(outcome.train_loss)},
        "valid": None if valid is None else {"loss": valid.nats_per_token} | valid.figures(),
        "test": None if test is None else test.figures(),
        "samples": [asdict(item) for item in samples.samples],
    }


def write_result(directory: Path, result: Result) -> None:
    """Write result.json whole; what JSON has no number for becomes null."""
    text = json.dumps(_finite(result), ensure_ascii=False, indent=2)
    ledger.write_atomically(directory / RESULT, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def keep_artifacts(
    tracker: Tracker, directory: Path, keeper: Keeper, outcome: Outcome, samples: Samples
) -> None:
    """Config, vocabulary, text and loss curve beside the checkpoints, all of it in the store."""
    (directory / "config.json").write_text(
        json.dumps(keeper.header["config"], indent=2, ensure_ascii=False), encoding="utf-8"
    )
    (directory / "vocabulary.json").write_text(keeper.header["vocabulary"], encoding="utf-8")
    (directory / "tokenizer.json").write_text(keeper.header["tokenizer"], encoding="utf-8")
    (directory / "generated.txt").write_text(sample_text(samples), encoding="utf-8")
    for name in ("config.json", "generated.txt", RESULT):
        tracker.log_file(directory / name)
    if isinstance(tracker, MLflowTracker):
        from unroll.report.figures import loss_curve

        loss_curve(outcome.history, directory / "loss_curve.svg")
        tracker.log_file(directory / "loss_curve.svg")
    for name in ("vocabulary.json", "tokenizer.json"):
        tracker.log_file(directory / name, "model")
    tracker.log_file(keeper.folder / ledger.BEST, "model")
    tracker.log_file(keeper.folder / ledger.LAST, "checkpoints")


def sample_text(samples: Samples) -> str:
    return "\n".join(f"{item.prefix} [...] {item.text}\n" for item in samples.samples)


def show_samples(samples: Samples) -> None:
    for item in samples.samples:
        say(f"{item.prefix} [...] {item.text}\n")
    if samples.unknown:
        say(f"not in the vocabulary, read as <unk>: {', '.join(map(repr, samples.unknown))}")


def figures_line(found: Score) -> str:
    return (
        f"perplexity {found.perplexity:.2f}, {found.nats_per_token:.4f} nats a token, "
        f"{found.bits_per_character:.3f} bits a character, {found.tokens:,} tokens, "
        f"{100 * found.unknown_rate:.1f}% unknown, {found.tokens_per_second:,.0f} tokens a second"
    )


def show_training(outcome: Outcome, test: Score | None, samples: Samples) -> None:
    say(
        f"trained: {outcome.steps:,} steps, {outcome.epochs:.2f} epochs, "
        f"{outcome.tokens_per_second:,.0f} tokens a second, "
        f"loss {outcome.train_loss:.4f}, perplexity {perplexity(outcome.train_loss):.2f}"
    )
    if outcome.best_valid is not None:
        say(f"valid (best, step {outcome.best_step}): {figures_line(outcome.best_valid)}")
    if test is not None:
        say(f"test: {figures_line(test)}")
    show_samples(samples)


def say(line: str) -> None:
    """Tell the person at the terminal."""
    print(line, flush=True)
