"""What a person may say of data: the corpus, its tokenizer, its vocabulary, its batches."""

from __future__ import annotations

from dataclasses import dataclass

from unroll.errors import require, require_one_of
from unroll.registry import register, register_schema


@dataclass(frozen=True)
class VocabularyConfig:
    min_frequency: int
    """Words seen less often than this in the training split become `<unk>`."""
    max_size: int | None
    """At most this many entries, specials included; null for no bound."""

    def __post_init__(self) -> None:
        require(
            self.min_frequency >= 1,
            f"data.vocabulary.min_frequency={self.min_frequency}: a word is kept from a "
            "frequency of at least 1",
        )
        require(
            self.max_size is None or self.max_size >= 5,
            f"data.vocabulary.max_size={self.max_size}: room is needed for four specials and one "
            "word, so at least 5 (or null for no bound)",
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
    """Lower-case first, as the lab does."""


@register("data/tokenizer", "character", builds="unroll.data.tokenizer:CharacterTokenizer")
@dataclass(frozen=True)
class CharacterConfig(TokenizerConfig):
    """Every character a token."""

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
            f"data.tokenizer.size={self.size}: the 256 bytes come first, so more than 256",
        )


@dataclass(frozen=True)
class BatchingConfig:
    name: str
    length: int
    """Time steps of a batch."""
    batch_size: int
    """Rows of a batch."""

    def __post_init__(self) -> None:
        require(self.length >= 1, f"data.batching.length={self.length}: at least one time step")
        require(
            self.batch_size >= 1, f"data.batching.batch_size={self.batch_size}: at least one row"
        )


@register("data/batching", "windows", builds="unroll.data.batching:Windows")
@dataclass(frozen=True)
class WindowsConfig(BatchingConfig):
    """The lab's task: `length` tokens in, the next one out, inside one document."""

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


@dataclass(frozen=True)
class CorpusConfig:
    name: str
    valid_fraction: float
    """Share of the training documents held out where the corpus has no validation split."""
    test_fraction: float
    """The same for the test split. 0 holds nothing out."""
    split_seed: int
    """Seed of the choice of held-out documents, and of what is generated."""
    limit: int | None
    """Only the first n documents of every split the corpus has; null for all."""
    append_eos: bool
    """End every document with `<eos>`."""
    cache: str
    """Folder of the token streams."""
    vocabulary: VocabularyConfig
    tokenizer: TokenizerConfig
    batching: BatchingConfig

    free_text = ("path", "valid_path", "test_path", "text_column")

    def __post_init__(self) -> None:
        for key in ("valid_fraction", "test_fraction"):
            share = getattr(self, key)
            require(0 <= share < 1, f"data.{key}={share}: a share from 0 up to, but below, 1")
        require(
            self.valid_fraction + self.test_fraction < 1,
            f"data.valid_fraction={self.valid_fraction} and data.test_fraction="
            f"{self.test_fraction} leave nothing to train on: their sum must be below 1",
        )
        require(
            self.limit is None or self.limit >= 1,
            f"data.limit={self.limit}: at least one document (or null for all)",
        )


@register("data", "lee_news", builds="unroll.data.corpus:LeeNews")
@dataclass(frozen=True)
class LeeNewsConfig(CorpusConfig):
    """The Lee news corpus that the gensim package carries (Lee et al. 2005)."""


@register("data", "ag_news", builds="unroll.data.corpus:AGNews")
@dataclass(frozen=True)
class AGNewsConfig(CorpusConfig):
    """AG News (Zhang et al. 2015)."""

    path: str | None
    """A `save_to_disk` folder; null takes `fancyzhx/ag_news` from the Hugging Face hub."""


@register("data", "penn_treebank", builds="unroll.data.corpus:PennTreebank")
@dataclass(frozen=True)
class PennTreebankConfig(CorpusConfig):
    """Penn Treebank as preprocessed by Mikolov: a sentence a line."""

    path: str
    """The folder of ptb.train.txt, ptb.valid.txt and ptb.test.txt."""


@register("data", "text_files", builds="unroll.data.corpus:TextFiles")
@dataclass(frozen=True)
class TextFilesConfig(CorpusConfig):
    """Any text: plain, gz, zip, CSV, JSONL or Parquet."""

    path: str
    """A file, a folder, or a glob."""
    valid_path: str | None
    test_path: str | None
    document: str
    """What a document is in plain text: line, paragraph (parted by empty lines) or file."""
    encoding: str
    text_column: str
    """The column that holds the text, in CSV, JSONL and Parquet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("data.document", self.document, ("line", "paragraph", "file"))


@register("data", "time_machine", builds="unroll.data.corpus:TimeMachine")
@dataclass(frozen=True)
class TimeMachineConfig(CorpusConfig):
    """The Time Machine (Wells 1895), a line a document, lines set end to end as in d2l 8.2."""

    path: str | None
    """The text; null downloads it and checks its SHA-1."""
    cleaning: str
    """letters: everything but letters becomes one space (d2l); lines: lines are only stripped."""
    characters: int | None
    """Only the first n characters, after cleaning; null for all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("data.cleaning", self.cleaning, ("letters", "lines"))
        _require_characters(self.characters)


@register("data", "lyrics", builds="unroll.data.corpus:Lyrics")
@dataclass(frozen=True)
class LyricsConfig(CorpusConfig):
    """Song lyrics out of a zip, one text with its newlines as spaces (d2l, first edition, 6.3)."""

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
    """Distractors between the symbol and its return."""
    symbols: int
    """Different symbols."""
    distractors: int
    """Different distractors, each as likely; 1 fills every gap alike."""
    documents: int
    """Documents drawn, those that are held out included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("gap", 0), ("symbols", 2), ("distractors", 1), ("documents", 1)):
            value = getattr(self, key)
            require(value >= least, f"data.{key}={value}: at least {least}")
        length = self.batching.length
        require(
            length > self.gap,
            f"data.gap={self.gap}: the symbol would have left a sequence of data.batching.length="
            f"{length} before it returns: take data.batching.length={self.gap + 1}, or "
            f"data.gap={length - 1}",
        )
        require(
            self.batching.name != "windows" or length == self.gap + 1,
            f"data.batching.length={length}: a window takes a symbol and its gap of "
            f"data.gap={self.gap}, and no document holds more: take data.batching.length="
            f"{self.gap + 1}, or leave it out",
        )
        require(
            self.tokenizer.name == "word" and not self.append_eos,
            f"data/tokenizer={self.tokenizer.name} data.append_eos={str(self.append_eos).lower()}:"
            " data=recall counts its gap in words and ends with the symbol, so take "
            "data/tokenizer=word data.append_eos=false",
        )


def _require_characters(characters: int | None) -> None:
    require(
        characters is None or characters >= 1,
        f"data.characters={characters}: at least one character (or null for all)",
    )
