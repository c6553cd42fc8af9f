"""Cross-scoring: every run goes on from the same prefixes, and every run reads what each wrote.

The texts of people stand beside those of the runs: real continuations, of the test split of the
first run's corpus (or of the one that ``data=`` names), as many and as long as a run writes. Whole
texts are compared, not ids: each reader cuts a text into its own tokens, so that runs over other
tokenisations stand side by side in bits per character. Perplexities do only where tokens and
vocabulary are the same.

Only what follows a prefix is scored, given the prefix. Each text is read as a document of its own:
``evaluation.protocol=stream`` becomes ``document`` for them and ``handout`` becomes ``window``; the
test split is read under the protocol as it is. A run's score of its own text is its
self-perplexity. Diversity is counted in the first run's tokens.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from unroll.config import Config
from unroll.data.config import CorpusConfig
from unroll.data.token_stream import Encoded, Ids, TokenStream, texts
from unroll.data.vocabulary import END, SPECIALS
from unroll.errors import require
from unroll.evaluation.config import EvaluationConfig
from unroll.evaluation.diversity import distinct_n, repetition
from unroll.evaluation.perplexity import Score, score
from unroll.generation.config import SamplingConfig
from unroll.generation.sampler import sample
from unroll.registry import build
from unroll.tasks.config import CompareConfig
from unroll.tasks.run import Result, Run, say
from unroll.tasks.trained import Trained, chosen_corpus, load_run

PEOPLE, TEST, GREEDY = "people", "test", "greedy"
REPEATED = 4
"""Length of the n-grams whose repetition is counted."""
OWN_DOCUMENT = {"stream": "document", "handout": "window"}
_SPECIAL = re.compile(f"({'|'.join(map(re.escape, SPECIALS))})")


@dataclass(frozen=True)
class Text:
    """``prefix + text`` is the whole: the white space between them opens ``text``."""

    prefix: str
    text: str


@dataclass(frozen=True)
class Written:
    """What one writer wrote in one mode: ``greedy``, a temperature, or None for people."""

    writer: str
    mode: str | None
    texts: list[Text]


def compare(
    task: CompareConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Let every run write, and every run read what each has written."""
    readers = load_runs(task, config, overrides)
    ids = [reader.run_id for reader in readers]
    run = Run(replace(config, task=replace(task, runs=ids)), directory, overrides)
    found = run.finished_before(reuse)
    if found:
        return found
    corpus = chosen_corpus(readers[0], config, overrides)
    splits = [reader.read(corpus, config.data.cache) for reader in readers]
    people = real_texts(corpus, splits[0], config.sampling)
    count = config.sampling.prefix_documents
    prefixes = config.sampling.prefixes or [item.prefix for item in people[:count]]
    with run.recorded():
        written = [Written(PEOPLE, None, people)]
        for writer in readers:
            for mode, sampling in modes(task, config.sampling).items():
                say(f"{writer.run_id} writes: {mode}")
                written.append(Written(writer.run_id, mode, write(writer, prefixes, sampling)))
        measures = [measured(item, readers[0]) for item in written]
        scores = []
        for reader, encoded in zip(readers, splits, strict=True):
            say(f"{reader.run_id} reads")
            unknown = reader.vocabulary.unknown
            whole = score(reader.model, encoded.streams[TEST], config.evaluation, unknown)
            scores.append({"reader": reader.run_id, "writer": TEST, "mode": None} | figures(whole))
            for item in written:
                place = {"reader": reader.run_id, "writer": item.writer, "mode": item.mode}
                scores.append(place | figures(read(reader, item.texts, config.evaluation)))
        runs = [
            {
                "run_id": reader.run_id,
                "model": reader.model.config.name,
                "parameters": reader.model.parameter_count,
            }
            for reader in readers
        ]
        result = run.keep(
            {"runs": runs, "texts": measures, "scores": scores}, main_figures(measures, scores)
        )
    show(measures, scores)
    return result


def load_runs(task: CompareConfig, config: Config, overrides: list[str]) -> list[Trained]:
    """The runs that ``task.runs`` names.

    Raises:
        Refused: one cannot be read, or is named twice.
    """
    readers = [load_run(reference, config, overrides) for reference in task.runs]
    seen: dict[str, str] = {}
    for reference, reader in zip(task.runs, readers, strict=True):
        require(
            reader.run_id not in seen,
            f"task.runs names run {reader.run_id} twice, as {seen.get(reader.run_id)} and as "
            f"{reference}: leave one out",
        )
        seen[reader.run_id] = reference
    return readers


def modes(task: CompareConfig, sampling: SamplingConfig) -> dict[str, SamplingConfig]:
    """The ways of writing, by name."""
    found = {GREEDY: replace(sampling, greedy=True)} if task.greedy else {}
    for temperature in task.temperatures:
        found[str(temperature)] = replace(sampling, greedy=False, temperature=temperature)
    return found


def real_texts(corpus: CorpusConfig, encoded: Encoded, sampling: SamplingConfig) -> list[Text]:
    """As many texts of the test split as a run writes, cut where the prefix ends.

    They are read from the corpus itself, for a stream has lost the words it does not know.

    Raises:
        Refused: there is no test split, or it is too short.
    """
    require(TEST in encoded.streams, "the corpus has no test split: take data.test_fraction=0.1")
    stream = encoded.streams[TEST]
    length = sampling.prefix_length + sampling.length
    count = len(sampling.prefixes or range(sampling.prefix_documents)) * sampling.samples
    starts = openings(stream, length, count)
    require(
        len(starts) == count,
        f"the test split holds {len(starts)} texts of {length} tokens, and {count} are wanted: "
        "take a smaller sampling.length, sampling.prefix_documents or sampling.samples",
    )
    end = [END] if corpus.append_eos else []
    documents = texts(build("data", corpus).read()[TEST])
    tokens = list(
        islice(
            chain.from_iterable([*encoded.tokenizer.tokenize(text), *end] for text in documents),
            starts[-1] + length,
        )
    )
    found = []
    for start in starts:
        prefix = encoded.tokenizer.join(tokens[start : start + sampling.prefix_length])
        whole = encoded.tokenizer.join(tokens[start : start + length])
        found.append(Text(prefix, whole[len(prefix) :]))
    return found


def openings(stream: TokenStream, length: int, count: int) -> list[int]:
    """Where ``count`` texts of ``length`` tokens start: documents that are as long, or where
    those are too few, documents as they come, each read on past its end."""
    begins = stream.offsets[:-1]
    long = begins[stream.lengths >= length][:count].tolist()
    if len(long) == count:
        return [int(start) for start in long]
    starts: list[int] = []
    for start in begins.tolist():
        free = not starts or start >= starts[-1] + length
        if free and start + length <= len(stream) and len(starts) < count:
            starts.append(start)
    return starts


def write(writer: Trained, prefixes: list[str], sampling: SamplingConfig) -> list[Text]:
    """The run's continuations of the prefixes."""
    tokenizer = writer.tokenizer
    found = sample(
        writer.model,
        tokenizer,
        writer.vocabulary,
        prefixes,
        sampling,
        writer.data.batching.length,
    )
    written = []
    for item in found.samples:
        tokens = tokenizer.tokenize(item.prefix)
        prefix = tokenizer.join(tokens)
        whole = tokenizer.join([*tokens, *tokenizer.tokenize(item.text)])
        written.append(Text(prefix, whole[len(prefix) :]))
    return written


def cut(reader: Trained, text: str) -> list[str]:
    """A text in the reader's tokens; specials that were written out are tokens again."""
    return [
        token
        for part in _SPECIAL.split(text)
        for token in ([part] if part in SPECIALS else reader.tokenizer.tokenize(part))
    ]


def read(reader: Trained, items: list[Text], config: EvaluationConfig) -> Score:
    """The reader's score of what follows the prefixes: that of whole texts less that of the
    prefixes by themselves, since either is a sum over tokens given those before."""
    config = replace(config, protocol=OWN_DOCUMENT.get(config.protocol, config.protocol))
    model, unknown = reader.model, reader.vocabulary.unknown

    def ids(text: str) -> Ids:
        return reader.vocabulary.encode(cut(reader, text))

    prefixes = TokenStream.from_documents([ids(item.prefix) for item in items])
    wholes = TokenStream.from_documents(
        [np.concatenate([ids(item.prefix), ids(item.text)]) for item in items]
    )
    found = score(model, wholes, config, unknown)
    found = replace(found, characters=float(sum(len(item.text) for item in items)))
    if prefixes.lengths.max() < 2:
        return found
    before = score(model, prefixes, config, unknown)
    return replace(
        found,
        nats=found.nats - before.nats,
        tokens=found.tokens - before.tokens,
        counted=found.counted - before.counted,
        unknown=found.unknown - before.unknown,
    )


def figures(found: Score) -> dict[str, Any]:
    """What a result says of a score; NaN where nothing was written."""
    keys = ("perplexity", "nats_per_token", "bits_per_character")
    values = {key: getattr(found, key) if found.counted else math.nan for key in keys}
    return values | {"tokens": found.tokens}


def measured(written: Written, first: Trained) -> dict[str, Any]:
    """Texts with their diversity, in the first run's tokens."""
    tokens = [cut(first, item.text) for item in written.texts]
    return {
        "writer": written.writer,
        "mode": written.mode,
        "distinct_1": distinct_n(tokens, 1),
        "distinct_2": distinct_n(tokens, 2),
        "distinct_3": distinct_n(tokens, 3),
        "repetition": repetition(tokens, REPEATED),
        "tokens": sum(map(len, tokens)),
        "samples": [asdict(item) for item in written.texts],
    }


def main_figures(measures: list[dict[str, Any]], scores: list[dict[str, Any]]) -> dict[str, float]:
    """What goes into the store: how each run reads real text and its own, and how varied that is.

    The whole matrix is in the result.
    """
    found = {}
    for item in measures:
        place = f"{item['writer']}/{item['mode']}" if item["mode"] else item["writer"]
        for key in ("distinct_2", "repetition"):
            found[f"{place}/{key}"] = item[key]
    for item in scores:
        if item["mode"] is None:
            found[f"{item['reader']}/{item['writer']}_perplexity"] = item["perplexity"]
        elif item["reader"] == item["writer"]:
            found[f"{item['reader']}/{item['mode']}/self_perplexity"] = item["perplexity"]
    return found


def show(measures: list[dict[str, Any]], scores: list[dict[str, Any]]) -> None:
    for item in measures:
        say(
            f"{item['writer']:.8} {item['mode'] or '':>6}: distinct-1 {item['distinct_1']:.3f}, "
            f"-2 {item['distinct_2']:.3f}, -3 {item['distinct_3']:.3f}, "
            f"repetition {item['repetition']:.3f}"
        )
    for item in scores:
        say(
            f"{item['reader']:.8} reads {item['writer']:.8} {item['mode'] or '':>6}: "
            f"perplexity {item['perplexity']:.2f}, "
            f"{item['bits_per_character']:.3f} bits a character"
        )
