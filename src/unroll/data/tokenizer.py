"""Text to tokens and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from unroll.data.config import CharacterConfig, SubwordConfig, WordConfig


class Tokenizer(Protocol):
    """What every tokenizer offers."""

    def train(self, documents: Iterable[str]) -> None:
        """Learn from the training documents, if there is something to learn."""

    @property
    def inventory(self) -> list[str]:
        """Tokens that the vocabulary must contain, seen or not."""

    def tokenize(self, text: str) -> list[str]: ...

    def tokenize_all(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each text, as ``tokenize`` gives them."""

    def join(self, tokens: Iterable[str]) -> str:
        """Text of tokens; the inverse of ``tokenize`` except for case and white space."""

    def to_json(self) -> str:
        """What was learned."""

    def restore(self, learned: str) -> None:
        """Restore what a tokenizer with the same config learned."""


class _RuleBased:
    """A tokenizer that learns nothing."""

    @property
    def inventory(self) -> list[str]:
        return []

    def train(self, documents: Iterable[str]) -> None:
        pass

    def tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def tokenize_all(self, texts: Sequence[str]) -> list[list[str]]:
        return list(map(self.tokenize, texts))

    def to_json(self) -> str:
        return "{}"

    def restore(self, learned: str) -> None:
        pass


class WordTokenizer(_RuleBased):
    """Convert to lower case, then split on white space: the lab's tokens."""

    def __init__(self, config: WordConfig) -> None:
        self.lower = config.lower

    def tokenize(self, text: str) -> list[str]:
        return (text.lower() if self.lower else text).split()

    def join(self, tokens: Iterable[str]) -> str:
        return " ".join(tokens)


class CharacterTokenizer(_RuleBased):
    """Every character is a token, including white space."""

    def __init__(self, config: CharacterConfig) -> None:
        self.lower = config.lower

    def tokenize(self, text: str) -> list[str]:
        return list(text.lower() if self.lower else text)

    def join(self, tokens: Iterable[str]) -> str:
        return "".join(tokens)


class SubwordTokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016, over bytes as in Radford et al. 2019).

    It can represent every text, since each of the 256 bytes is a token.
    """

    def __init__(self, config: SubwordConfig) -> None:
        from tokenizers import Tokenizer as Trained
        from tokenizers import decoders, models, normalizers, pre_tokenizers

        self.size = config.size
        self._trained = Trained(models.BPE())
        if config.lower:
            self._trained.normalizer = normalizers.Lowercase()
        self._trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._decoder = decoders.ByteLevel()
        self._trained.decoder = self._decoder

    def train(self, documents: Iterable[str]) -> None:
        from tokenizers import pre_tokenizers, trainers

        trainer = trainers.BpeTrainer(
            vocab_size=self.size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        self._trained.train_from_iterator(documents, trainer)

    @property
    def inventory(self) -> list[str]:
        entries = self._trained.get_vocab()
        return sorted(entries, key=entries.__getitem__)

    def tokenize(self, text: str) -> list[str]:
        return list(self._trained.encode(text).tokens)

    def tokenize_all(self, texts: Sequence[str]) -> list[list[str]]:
        """As ``tokenize``, on all cores. Encodings without offsets have no tokens either, but ids
        of the inventory."""
        name = self.inventory.__getitem__
        return [list(map(name, found.ids)) for found in self._trained.encode_batch_fast(texts)]

    def join(self, tokens: Iterable[str]) -> str:
        return str(self._decoder.decode(list(tokens)))

    def to_json(self) -> str:
        return str(self._trained.to_str())

    def restore(self, learned: str) -> None:
        from tokenizers import Tokenizer as Trained

        try:
            self._trained = Trained.from_str(learned)
        except Exception as error:  # the library raises no narrower class
            raise ValueError(f"not a tokenizer: {error}") from error
