"""Cross-scoring: every run continues the same prefixes, and every run scores what each has written.

The texts of people are scored too: real continuations from the test split of the first run's corpus
(or of the corpus that ``data=`` names), as many and as long as those of a run. Texts are compared,
not ids: each reader splits a text into its own tokens, so that runs with different tokenizers can
be compared in bits per character. Perplexities can be compared only between runs with the same
tokens and vocabulary. A special token that a writer has drawn stays that special token for every
reader; what only spells the name of a special is text.

Only what follows a prefix is scored, given the prefix. Each text is scored as a document of its
own: ``evaluation.protocol=stream`` becomes ``document`` for it and ``handout`` becomes ``window``,
while the test split is scored under the protocol itself. A run's score of its own text is its
self-perplexity. Diversity is counted in ids of the first run's vocabulary, for all writers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unroll.config import Config
from unroll.data.config import CorpusConfig
from unroll.data.corpus import texts
from unroll.data.passage import Passage, divided
from unroll.data.token_stream import Encoded, TokenStream
from unroll.data.vocabulary import END, SPECIALS
from unroll.errors import require
from unroll.evaluation.config import EvaluationConfig
from unroll.evaluation.diversity import distinct_n, repetition
from unroll.evaluation.perplexity import Score, score
from unroll.generation.config import SamplingConfig
from unroll.generation.sampler import continuations
from unroll.registry import build
from unroll.tasks.config import CompareConfig
from unroll.tasks.run import Result, Run, say
from unroll.tasks.trained import Trained, chosen_corpus, load_run

PEOPLE, TEST, GREEDY = "people", "test", "greedy"
REPEATED = 4
"""Length of the n-grams whose repetition is counted."""
OWN_DOCUMENT = {"stream": "document", "handout": "window"}


@dataclass(frozen=True)
class Text:
    """A prefix and its continuation, which starts with the white space between them."""

    prefix: Passage
    continuation: Passage


@dataclass(frozen=True)
class Written:
    """The texts of one writer in one mode: ``greedy``, a temperature, or None for people."""

    writer: str
    mode: str | None
    texts: list[Text]


def compare(
    task: CompareConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Let every run write, and let every run score what each has written."""
    require_whole_texts(config.evaluation)
    readers = load_runs(task, config, overrides)
    corpus = chosen_corpus(readers[0], config, overrides)
    config = identified(task, config, readers, corpus)
    run = Run(config, directory, overrides)
    found = run.finished_before(reuse)
    if found:
        return found
    splits = [reader.read(corpus, config.data.cache) for reader in readers]
    people = real_texts(corpus, splits[0], config.sampling)
    prefixes = chosen_prefixes(config.sampling, people)
    with run.recorded():
        written = [Written(PEOPLE, None, people)]
        for writer in readers:
            written += written_by(writer, prefixes, modes(task, config.sampling))
        measures = [measured(item, readers[0]) for item in written]
        scores: list[dict[str, Any]] = []
        for reader, split in zip(readers, splits, strict=True):
            scores += scores_of(reader, split.streams[TEST], written, config.evaluation)
        result: Result = {"runs": [described(reader) for reader in readers]}
        result |= {"texts": measures, "scores": scores}
        result = run.keep(result, main_figures(measures, scores))
    show(measures, scores)
    return result


def identified(
    task: CompareConfig, config: Config, readers: list[Trained], corpus: CorpusConfig
) -> Config:
    """The config with the corpus and the checkpoints that ``task.runs`` names, as parts of its
    fingerprint."""
    runs = [f"{reader.run_id} at step {reader.step}" for reader in readers]
    data = replace(corpus, cache=config.data.cache)
    return replace(config, task=replace(task, runs=runs), data=data)


def require_whole_texts(config: EvaluationConfig) -> None:
    """Refuse the protocol that scores only the last token of a text."""
    require(
        config.protocol != "last",
        "evaluation.protocol=last scores one token per text, and task=compare whole "
        "continuations: use evaluation.protocol=document",
    )


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
    """As many texts of the test split as a run writes, divided where the prefix ends.

    They are read from the corpus itself, because a stream has lost the unknown words.

    Raises:
        Refused: there is no test split, or it is too short.
    """
    require(TEST in encoded.streams, "the corpus has no test split: use data.test_fraction=0.1")
    stream, tokenizer = encoded.streams[TEST], encoded.tokenizer
    length = sampling.prefix_length + sampling.length
    count = len(sampling.prefixes or range(sampling.prefix_documents)) * sampling.samples
    starts = openings(stream, length, count)
    require(
        len(starts) == count,
        f"the test split has {len(starts)} texts of {length} tokens, but {count} are needed: use "
        "a smaller sampling.length, sampling.prefix_documents or sampling.samples",
    )
    end = [END] if corpus.append_eos else []
    ends = set((stream.offsets[1:] - 1).tolist()) if corpus.append_eos else set()
    documents = texts(build("data", corpus).read()[TEST])
    joined = chain.from_iterable([*tokenizer.tokenize(text), *end] for text in documents)
    tokens = list(islice(joined, starts[-1] + length))
    return [
        Text(
            *divided(
                tokenizer,
                tokens[start : start + length],
                [position - start for position in range(start, start + length) if position in ends],
                sampling.prefix_length,
            )
        )
        for start in starts
    ]


def openings(stream: TokenStream, length: int, count: int) -> list[int]:
    """Positions where ``count`` texts of ``length`` tokens start: at documents that are long
    enough, or if these are too few, at any documents, whose texts then go past their ends."""
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


def chosen_prefixes(sampling: SamplingConfig, people: list[Text]) -> list[Passage]:
    """The prefixes of the config, else those of the first texts of people."""
    if sampling.prefixes is not None:
        return [Passage(prefix) for prefix in sampling.prefixes]
    return [item.prefix for item in people[: sampling.prefix_documents]]


def written_by(
    writer: Trained, prefixes: list[Passage], ways: dict[str, SamplingConfig]
) -> Iterator[Written]:
    """The texts of a run in each mode."""
    for mode, sampling in ways.items():
        say(f"{writer.run_id} writes: {mode}")
        yield Written(writer.run_id, mode, write(writer, prefixes, sampling))


def write(writer: Trained, prefixes: list[Passage], sampling: SamplingConfig) -> list[Text]:
    """The run's continuations of the prefixes."""
    tokenizer, vocabulary = writer.tokenizer, writer.vocabulary
    encoded = [torch.from_numpy(item.ids(tokenizer, vocabulary)).long() for item in prefixes]
    context = writer.data.batching.length
    found = continuations(writer.model, vocabulary, encoded, sampling, context)
    written = []
    for prefix, rows in zip(prefixes, found, strict=True):
        tokens, specials = prefix.split(tokenizer)
        for row in rows:
            drawn = [
                position
                for position, token in enumerate(row, start=len(tokens))
                if token < len(SPECIALS)
            ]
            whole = [*tokens, *vocabulary.decode(row)]
            written.append(Text(*divided(tokenizer, whole, [*specials, *drawn], len(tokens))))
    return written


def scores_of(
    reader: Trained, test: TokenStream, written: list[Written], config: EvaluationConfig
) -> Iterator[dict[str, Any]]:
    """The reader's scores of the test split and of all texts."""
    say(f"{reader.run_id} reads")
    place = {"reader": reader.run_id, "writer": TEST, "mode": None}
    yield place | figures(score(reader.model, test, config, reader.vocabulary.unknown))
    for item in written:
        place = {"reader": reader.run_id, "writer": item.writer, "mode": item.mode}
        yield place | figures(read(reader, item.texts, config))


def read(reader: Trained, items: list[Text], config: EvaluationConfig) -> Score:
    """The reader's score of what follows the prefixes: the score of whole texts minus that of the
    prefixes alone, since both are sums over tokens given those before."""
    config = replace(config, protocol=OWN_DOCUMENT.get(config.protocol, config.protocol))
    tokenizer, vocabulary = reader.tokenizer, reader.vocabulary
    given = [item.prefix.ids(tokenizer, vocabulary) for item in items]
    added = [item.continuation.ids(tokenizer, vocabulary) for item in items]
    prefixes = TokenStream.from_documents(given)
    wholes = TokenStream.from_documents(
        [np.concatenate(parts) for parts in zip(given, added, strict=True)]
    )
    found = score(reader.model, wholes, config, vocabulary.unknown)
    found = replace(found, characters=float(sum(len(item.continuation.text) for item in items)))
    if prefixes.lengths.max() < 2:
        return found
    before = score(reader.model, prefixes, config, vocabulary.unknown)
    return replace(
        found,
        nats=found.nats - before.nats,
        tokens=found.tokens - before.tokens,
        counted=found.counted - before.counted,
        unknown=found.unknown - before.unknown,
    )


def figures(found: Score) -> dict[str, Any]:
    """The figures of a score that go into the result; NaN if nothing was written."""
    keys = ("perplexity", "nats_per_token", "bits_per_character")
    values = {key: getattr(found, key) if found.counted else math.nan for key in keys}
    return values | {"tokens": found.tokens}


def measured(written: Written, first: Trained) -> dict[str, Any]:
    """Texts with their diversity, in ids of the first run's vocabulary."""
    ids = [
        item.continuation.ids(first.tokenizer, first.vocabulary).tolist() for item in written.texts
    ]
    return {
        "writer": written.writer,
        "mode": written.mode,
        "distinct_1": distinct_n(ids, 1),
        "distinct_2": distinct_n(ids, 2),
        "distinct_3": distinct_n(ids, 3),
        "repetition": repetition(ids, REPEATED),
        "tokens": sum(map(len, ids)),
        "samples": [
            {"prefix": item.prefix.text, "text": item.continuation.text} for item in written.texts
        ],
    }


def described(reader: Trained) -> dict[str, Any]:
    """What the result says about a run."""
    return {
        "run_id": reader.run_id,
        "model": reader.model.config.name,
        "parameters": reader.model.parameter_count,
    }


def main_figures(measures: list[dict[str, Any]], scores: list[dict[str, Any]]) -> dict[str, float]:
    """The metrics of the run: how varied each text is, and how each run scores real text and its
    own. The result has all scores."""
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
            f"{item['bits_per_character']:.3f} bits per character"
        )
