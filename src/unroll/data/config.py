"""Config of data: the corpus, its tokenizer, its vocabulary, its batches."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import ClassVar

from unroll.errors import Refused, require, require_one_of, require_share
from unroll.registry import register, register_schema

MOST_SHARDS = 256
"""Each is an open file of every process that reads them; systems allow 1,024."""


@dataclass(frozen=True)
class VocabularyConfig:
    min_frequency: int
    """Words seen less often than this in the training split become `<unk>`."""
    max_size: int | None
    """At most this many entries, including the four specials; null for no limit."""

    def __post_init__(self) -> None:
        require(
            self.min_frequency >= 1,
            f"data.vocabulary.min_frequency={self.min_frequency} must be at least 1",
        )
        require(
            self.max_size is None or self.max_size >= 5,
            f"data.vocabulary.max_size={self.max_size} must be at least 5, for four specials and "
            "one word (or null for no limit)",
        )


register_schema("data", "vocabulary", VocabularyConfig)


@dataclass(frozen=True)
class TokenizerConfig:
    name: str


@register("data/tokenizer", "word", builds="unroll.data.tokenizer:WordTokenizer")
@dataclass(frozen=True)
class WordConfig(TokenizerConfig):
    """Split on white space."""

    lower: bool
    """Convert to lower case first, as the lab does."""


@register("data/tokenizer", "character", builds="unroll.data.tokenizer:CharacterTokenizer")
@dataclass(frozen=True)
class CharacterConfig(TokenizerConfig):
    """Every character is a token."""

    lower: bool


@register("data/tokenizer", "subword", builds="unroll.data.tokenizer:SubwordTokenizer")
@dataclass(frozen=True)
class SubwordConfig(TokenizerConfig):
    """Byte-level byte-pair encoding, trained on the training split (Sennrich et al. 2016)."""

    lower: bool
    size: int
    """Entries of the byte-pair vocabulary; 256 of them are the bytes."""

    def __post_init__(self) -> None:
        require(
            self.size > 256,
            f"data.tokenizer.size={self.size} must be more than 256, the number of bytes",
        )


@dataclass(frozen=True)
class BatchingConfig:
    name: str
    length: int
    """Time steps in a batch."""
    batch_size: int
    """Rows in a batch."""

    def __post_init__(self) -> None:
        require(self.length >= 1, f"data.batching.length={self.length} must be at least 1")
        require(
            self.batch_size >= 1, f"data.batching.batch_size={self.batch_size} must be at least 1"
        )


@register("data/batching", "windows", builds="unroll.data.batching:Windows")
@dataclass(frozen=True)
class WindowsConfig(BatchingConfig):
    """The lab's task: read `length` tokens of a document, predict the next one."""

    shuffle: bool


@register("data/batching", "random", builds="unroll.data.batching:Random")
@dataclass(frozen=True)
class RandomConfig(BatchingConfig):
    """Subsequences in random order from a random offset; the state starts fresh (d2l 8.3)."""

    random_offset: bool


@register("data/batching", "sequential", builds="unroll.data.batching:Sequential")
@dataclass(frozen=True)
class SequentialConfig(BatchingConfig):
    """Columns that continue from batch to batch; the state is carried."""

    random_offset: bool
    random_length: bool
    """Draw the length of each batch around `length`, and scale the learning rate of its step by the
    share that was drawn (Merity et al. 2018)."""


@dataclass(frozen=True)
class CorpusConfig:
    name: str
    valid_fraction: float
    """Share of the training documents to hold out if the corpus has no validation split."""
    test_fraction: float
    """The same for the test split. With 0 nothing is held out."""
    split_seed: int
    """Seed that chooses held-out documents and draws generated ones."""
    limit: int | None
    """Only the first n documents of every split that the corpus has; null for all."""
    append_eos: bool
    """End every document with `<eos>`."""
    cache: str
    """Folder of the token streams."""
    shards: int
    """Number of files in which a split is written, each by a process of its own if there is a core
    for it. An entry that is in the cache is read, whatever its number of files."""
    vocabulary: VocabularyConfig
    tokenizer: TokenizerConfig
    batching: BatchingConfig

    free_text: ClassVar[tuple[str, ...]] = (
        "path",
        "valid_path",
        "test_path",
        "text_column",
        "encoding",
        "cache",
    )

    def __post_init__(self) -> None:
        for key in ("valid_fraction", "test_fraction"):
            require_share(f"data.{key}", getattr(self, key))
        require(
            self.valid_fraction + self.test_fraction < 1,
            f"data.valid_fraction={self.valid_fraction} and data.test_fraction="
            f"{self.test_fraction} leave nothing to train on: their sum must be below 1",
        )
        require(self.split_seed >= 0, f"data.split_seed={self.split_seed} must be at least 0")
        require(
            self.limit is None or self.limit >= 1,
            f"data.limit={self.limit} must be at least 1 (or null for all documents)",
        )
        require(
            1 <= self.shards <= MOST_SHARDS,
            f"data.shards={self.shards} must be from 1 to {MOST_SHARDS}",
        )


@register("data", "wikipedia", builds="unroll.data.wikipedia:Wikipedia")
@dataclass(frozen=True)
class WikipediaConfig(CorpusConfig):
    """About a hundred articles of English Wikipedia, from a dump that is part of the gensim
    package. Every tenth one is held out for each of validation and test."""


@register("data", "lee_news", builds="unroll.data.corpus:LeeNews")
@dataclass(frozen=True)
class LeeNewsConfig(CorpusConfig):
    """The Lee news corpus, which is part of the gensim package (Lee et al. 2005)."""


@register("data", "ag_news", builds="unroll.data.ag_news:AGNews")
@dataclass(frozen=True)
class AGNewsConfig(CorpusConfig):
    """AG News (Zhang et al. 2015)."""

    path: str | None
    """A folder with the published train.csv and test.csv, with Parquet files, or written by
    `save_to_disk`; null takes `fancyzhx/ag_news` from the Hugging Face hub."""


@register("data", "penn_treebank", builds="unroll.data.corpus:PennTreebank")
@dataclass(frozen=True)
class PennTreebankConfig(CorpusConfig):
    """Penn Treebank as preprocessed by Mikolov: one sentence per line."""

    path: str
    """The folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt."""


@register("data", "text_files", builds="unroll.data.corpus:TextFiles")
@dataclass(frozen=True)
class TextFilesConfig(CorpusConfig):
    """Any text: plain, gz, zip, CSV, JSONL or Parquet."""

    path: str
    """A file, a folder, or a glob; or the address of a file, such as `https://...`, which is read
    as a stream."""
    valid_path: str | None
    test_path: str | None
    document: str
    """What a document is in plain text: line, paragraph (separated by empty lines) or file."""
    encoding: str
    """Of plain text and CSV; JSONL and Parquet are always UTF-8."""
    text_column: int | str
    """The column that holds the text, in CSV, JSONL and Parquet. A number is its position, from 0,
    in CSV files without a header; a name made of digits is written in quotes: `'"0"'`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("data.document", self.document, ("line", "paragraph", "file"))
        require_text_encoding(self.encoding)
        require(
            isinstance(self.text_column, str) or self.text_column >= 0,
            f"data.text_column={self.text_column} must be at least 0: positions are counted from "
            "the first column",
        )


@register("data", "hub", builds="unroll.data.hub:Hub")
@dataclass(frozen=True)
class HubConfig(CorpusConfig):
    """A data set of the Hugging Face hub, read as a stream."""

    dataset: str
    """`NAME` or `OWNER/NAME`."""
    subset: str | None
    """Of a data set that has several, such as `wikitext-103-raw-v1`."""
    revision: str | None
    """A commit (40 digits: the hub is not asked for it), a branch or a tag; null for the newest."""
    text_column: str

    free_text = ("dataset", "subset", "revision")


@register("data", "time_machine", builds="unroll.data.books:TimeMachine")
@dataclass(frozen=True)
class TimeMachineConfig(CorpusConfig):
    """The Time Machine (Wells 1895): every line a document, lines end to end as in d2l 8.2."""

    path: str | None
    """The text file; null downloads it and checks its SHA-1."""
    cleaning: str
    """letters: anything else than letters becomes one space (d2l); lines: lines are only
    stripped."""
    characters: int | None
    """Only the first n characters, after cleaning; null for all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("data.cleaning", self.cleaning, ("letters", "lines"))
        _require_characters(self.characters)


@register("data", "lyrics", builds="unroll.data.books:Lyrics")
@dataclass(frozen=True)
class LyricsConfig(CorpusConfig):
    """Song lyrics from a zip file, as one text with spaces for newlines (d2l, first edition,
    6.3)."""

    path: str
    characters: int | None
    """Only the first n characters; null for all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_characters(self.characters)


@register("data", "recall", builds="unroll.data.recall:Recall")
@dataclass(frozen=True)
class RecallConfig(CorpusConfig):
    """Generated: a symbol, a gap of distractors, the same symbol (Hochreiter and Schmidhuber
    1997, experiment 2). Held-out splits are further draws."""

    gap: int
    """Number of distractors between the two symbols."""
    symbols: int
    """Number of different symbols."""
    distractors: int
    """Number of different distractors, equally likely; with 1 all gaps are the same."""
    documents: int
    """Number of documents drawn, including held-out ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("gap", 0), ("symbols", 2), ("distractors", 1), ("documents", 1)):
            value = getattr(self, key)
            require(value >= least, f"data.{key}={value} must be at least {least}")
        length = self.batching.length
        require(
            length > self.gap,
            f"data.gap={self.gap} does not fit into sequences of data.batching.length={length}: "
            f"use data.batching.length={self.gap + 1}, or data.gap={length - 1}",
        )
        require(
            self.batching.name != "windows" or length == self.gap + 1,
            f"data.batching.length={length}: a window is a symbol and data.gap={self.gap} words, "
            f"so use data.batching.length={self.gap + 1}, or leave it out",
        )
        require(
            self.tokenizer.name == "word" and not self.append_eos,
            f"data/tokenizer={self.tokenizer.name} data.append_eos={str(self.append_eos).lower()}:"
            " data=recall counts its gap in words and ends with the symbol, so use "
            "data/tokenizer=word data.append_eos=false",
        )


def require_text_encoding(encoding: str) -> None:
    """Raise ``Refused`` unless Python can decode text with ``encoding``; hex, for example, is a
    codec of bytes."""
    try:
        "".encode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError) as error:
        raise Refused(
            f"data.encoding={encoding} is not a text encoding that Python knows: use for example "
            "utf-8, latin-1 or gb18030"
        ) from error


def _require_characters(characters: int | None) -> None:
    require(
        characters is None or characters >= 1,
        f"data.characters={characters} must be at least 1 (or null for all)",
    )
