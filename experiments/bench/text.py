"""The texts that are read: a corpus that the command gives, or generated ids with the word
frequencies of natural text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unroll.app import compose
from unroll.data.shards import Ids
from unroll.data.token_stream import TokenStream, encode
from unroll.data.vocabulary import SPECIALS, Vocabulary
from unroll.registry import build

DOCUMENT = 120
"""Tokens of a generated document."""
PART = 1 << 22
"""Tokens that are generated at once."""
AG_NEWS_VOCABULARY, PENN_TREEBANK_VOCABULARY = 57_258, 10_003
"""Tokens of the vocabulary of the first 18,000 articles of AG News, and of Penn Treebank, specials
included: the sizes of generated text that stands in for them."""


@dataclass(frozen=True)
class Text:
    """A training text as ids."""

    name: str
    stream: TokenStream
    vocabulary: Vocabulary
    valid: TokenStream | None = None
    test: TokenStream | None = None

    def __len__(self) -> int:
        """Tokens of the vocabulary."""
        return len(self.vocabulary)

    def counts(self) -> npt.NDArray[np.int64]:
        """How often each token occurs, ``(vocabulary,)``."""
        return np.bincount(np.asarray(self.stream.tokens), minlength=len(self))


def zipf(tokens: int, vocabulary: int, generator: np.random.Generator) -> Ids:
    """Ids ``(tokens,)`` under Zipf's law with exponent 1: the word of rank r has the probability
    log((r + 1) / r) / log(words + 1). Its distribution function has a closed inverse, so that 100
    million take seconds."""
    words = vocabulary - len(SPECIALS)
    ranks = np.exp(generator.random(tokens) * np.log(words + 1)).astype(np.int32)  # 1 .. words
    found: Ids = len(SPECIALS) - 1 + np.minimum(ranks, words)
    return found


def generated(tokens: int, vocabulary: int) -> Text:
    """A text in memory."""
    ids = zipf(tokens, vocabulary, np.random.default_rng(0))
    stream = TokenStream.from_documents(np.split(ids, range(DOCUMENT, tokens, DOCUMENT)))
    return Text(f"generated text of {vocabulary:,} words", stream, numbered(vocabulary))


def numbered(size: int) -> Vocabulary:
    """A vocabulary of words that are numbers."""
    return Vocabulary([*SPECIALS, *map(str, range(size - len(SPECIALS)))])


def write(path: Path, tokens: int, vocabulary: int) -> None:
    """Write generated ids to a file that ``mapped`` opens, a part at a time."""
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, tokens, PART):
            zipf(min(PART, tokens - start), vocabulary, generator).tofile(file)


def mapped(path: Path, vocabulary: int) -> Text:
    """The memory-mapped text that ``write`` wrote, as one document."""
    ids = np.memmap(path, dtype=np.int32, mode="r")
    stream = TokenStream(ids, np.array([0, len(ids)]), 0)
    return Text(f"{len(ids):,} generated words", stream, numbered(vocabulary))


def corpus(*words: str) -> Text:
    """The corpus that these overrides select.

    Raises:
        Refused: it cannot be read.
    """
    config = compose(words)
    encoded = encode(config.data, build("data", config.data))
    streams = encoded.streams
    valid, test = streams.get("valid"), streams.get("test")
    return Text(config.data.name, streams["train"], encoded.vocabulary, valid, test)
