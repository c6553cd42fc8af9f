"""A trained run, read from its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from unroll.config import Config
from unroll.data.config import CorpusConfig, TextFilesConfig
from unroll.data.corpus import TextFiles
from unroll.data.text_reader import expand
from unroll.data.token_stream import Encoded, encode
from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import Vocabulary
from unroll.errors import Refused, require
from unroll.models.language_model import LanguageModel
from unroll.models.ngram import NGramModel
from unroll.models.quantized import (
    quantize,
    quantized_model,
    require_quantizable,
    weights_of,
)
from unroll.registry import build, restore
from unroll.tasks.run import device, prepare, resolved
from unroll.tracking import ledger
from unroll.tracking.tracker import Tracker
from unroll.training import checkpoint


@dataclass(frozen=True)
class Trained:
    """A trained run: its model, tokenizer and vocabulary, and the config of its corpus."""

    run_id: str
    step: int
    model: LanguageModel | NGramModel
    tokenizer: Tokenizer
    vocabulary: Vocabulary
    data: CorpusConfig

    def encode(self, config: Config, overrides: list[str]) -> Encoded:
        """The text or corpus that the command line names, or the run's own, as the run's ids."""
        if config.evaluation.text is not None:
            expand(config.evaluation.text, "evaluation.text")
            text = text_config(config.evaluation.text, self.data, config.data)
            found = encode(text, TextFiles(text), self.tokenizer, self.vocabulary)
            return replace(found, streams={"text": found.streams["train"]})
        try:
            return self.read(chosen_corpus(self, config, overrides), config.data.cache)
        except Refused as error:
            if names_corpus(overrides):
                raise
            raise Refused(
                f"the corpus of run {self.run_id} cannot be read on this machine ({error}): name "
                f"it with data={self.data.name} data.path=..., or do without it: "
                "sampling.prefix=TEXT, evaluation.text=FILE"
            ) from error

    def read(self, data: CorpusConfig, cache: str) -> Encoded:
        """Any corpus, as the run's ids."""
        data = replace(data, tokenizer=self.data.tokenizer, cache=cache)
        return encode(data, build("data", data), self.tokenizer, self.vocabulary)


def chosen_corpus(trained: Trained, config: Config, overrides: list[str]) -> CorpusConfig:
    """The corpus that the command line names, or the run's own."""
    return config.data if names_corpus(overrides) else trained.data


def names_corpus(overrides: list[str]) -> bool:
    """Whether the command line names a corpus."""
    return any(word.startswith("data=") for word in overrides)


def load_run(reference: str | None, config: Config, overrides: list[str]) -> Trained:
    """The run of a ``run=`` value: a run id, a run name, ``latest`` or a path. A run id may be that
    of a run of another machine, whose checkpoint the store has.

    Raises:
        Refused: the run does not exist, its checkpoint is damaged, or the command line sets keys
            of the model, the tokenizer or the vocabulary.
    """
    for word in overrides:
        key = word.lstrip("+").partition("=")[0]
        require(
            not key.startswith(("model", "data/tokenizer", "data.tokenizer", "data.vocabulary")),
            f"{word} has no effect in task={config.task.name}: model, tokenizer and vocabulary "
            "come from the run; leave it out",
        )
        require(
            not key.startswith("data.") or key == "data.cache" or names_corpus(overrides),
            f"{word} has no effect without data=: the corpus comes from the run, unless data= "
            "names another one",
        )
    assert reference is not None
    path = find_checkpoint(reference, config)
    found = checkpoint.read(path)
    try:
        model_config = restore("model", found.config["model"])
        data: CorpusConfig = restore("data", found.config["data"])
        vocabulary = Vocabulary.from_json(found.vocabulary)
        tokenizer: Tokenizer = build("data/tokenizer", data.tokenizer)
        tokenizer.restore(found.tokenizer)
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"checkpoint {path} is damaged: {error}") from error
    prepare(config)
    int8 = config.precision == "int8"
    precision = "float32" if int8 else resolved(config).precision
    model = build("model", model_config, len(vocabulary), precision)
    found.load(model)
    model = in_int8(model) if int8 else model.to(device(config))
    return Trained(found.run_id, found.step, model, tokenizer, vocabulary, data)


def find_checkpoint(reference: str, config: Config) -> Path:
    """The checkpoint that ``run=`` names: on this machine, else that of the store."""
    try:
        return ledger.find_checkpoint(Path(config.tracking.directory), reference)
    except Refused:
        tracker: Tracker = build("tracking", config.tracking)
        if fetched := tracker.fetch(reference, Path(config.data.cache)):
            return fetched
        raise


def in_int8(model: Any) -> LanguageModel:
    """The model in int8, on the CPU.

    Raises:
        Refused: it cannot be converted.
    """
    require_quantizable(model.config, "precision", "int8")
    return quantized_model(model.config, model.vocabulary_size, quantize(weights_of(model)))


def text_config(path: str, trained: CorpusConfig, given: CorpusConfig) -> TextFilesConfig:
    """A corpus of one text, with nothing held out. If the run ends documents with ``<eos>``, every
    line of the text is a document; otherwise the whole file is one."""
    shared = {
        key.name: getattr(trained, key.name) for key in fields(CorpusConfig) if key.name != "name"
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
