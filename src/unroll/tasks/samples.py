"""Prefixes to go on from, and how samples are shown."""

from __future__ import annotations

from unroll.config import Config
from unroll.data.token_stream import Encoded
from unroll.generation.sampler import Samples, encode_prefixes
from unroll.tasks.run import say


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


def sample_text(samples: Samples) -> str:
    return "\n".join(f"{item.prefix} [...] {item.text}\n" for item in samples.samples)


def show_samples(samples: Samples) -> None:
    for item in samples.samples:
        say(f"{item.prefix} [...] {item.text}\n")
    if samples.unknown:
        say(f"not in the vocabulary, read as <unk>: {', '.join(map(repr, samples.unknown))}")
