"""Prefixes of generated text, and how samples are printed."""

from __future__ import annotations

from unroll.config import Config
from unroll.data.token_stream import Encoded
from unroll.errors import redacted
from unroll.generation.sampler import Samples, encode_prefixes
from unroll.tasks.run import say


def chosen_prefixes(config: Config, encoded: Encoded) -> list[str]:
    """The prefixes to continue, checked before training.

    Raises:
        Refused: one is empty after tokenizing, or the stop token does not exist.
    """
    prefixes = config.sampling.prefixes or default_prefixes(config, encoded)
    encode_prefixes(encoded.tokenizer, encoded.vocabulary, prefixes, config.sampling)
    return prefixes


def default_prefixes(config: Config, encoded: Encoded) -> list[str]:
    """The first words of the first test documents; without a test split of the validation ones,
    without either of the training ones."""
    streams = encoded.streams
    stream = streams.get("test") or streams.get("valid") or streams["train"]
    count = min(config.sampling.prefix_documents, stream.documents)
    ids = [stream.document(index, config.sampling.prefix_length) for index in range(count)]
    return [
        encoded.tokenizer.join(encoded.vocabulary.decode(row.tolist())) for row in ids if len(row)
    ]


def sample_text(samples: Samples) -> str:
    """The samples as text: a prefix and its continuation each."""
    text = "\n".join(f"{item.prefix} [...] {item.text}\n" for item in samples.samples)
    return redacted(text)  # a prefix may hold any text


def show_samples(samples: Samples) -> None:
    """Print the samples and the words of the prefixes that are not in the vocabulary."""
    for item in samples.samples:
        say(f"{item.prefix} [...] {item.text}\n")
    if samples.unknown:
        say(f"not in the vocabulary, read as <unk>: {', '.join(map(repr, samples.unknown))}")
