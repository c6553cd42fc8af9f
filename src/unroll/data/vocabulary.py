"""Tokens to ids and back."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt

from unroll.data.config import VocabularyConfig

UNKNOWN, PADDING, BEGIN, END = "<unk>", "<pad>", "<bos>", "<eos>"
SPECIALS = (UNKNOWN, PADDING, BEGIN, END)


class Vocabulary:
    """The four specials, then the words by falling frequency (equally frequent words in the order
    in which they were first seen). Ids are positions in ``tokens``."""

    def __init__(self, tokens: Sequence[str]) -> None:
        if tuple(tokens[: len(SPECIALS)]) != SPECIALS or len(set(tokens)) != len(tokens):
            raise ValueError("a vocabulary must start with the specials and contain no token twice")
        self.tokens = list(tokens)
        self._ids = {token: position for position, token in enumerate(self.tokens)}
        self.unknown = self._ids[UNKNOWN]
        self.end = self._ids[END]

    @classmethod
    def from_counts(
        cls, counts: Counter[str], config: VocabularyConfig, always: Iterable[str] = ()
    ) -> Vocabulary:
        """Build from token counts; tokens in ``always`` are kept even if they are rare."""
        kept = dict.fromkeys(SPECIALS)
        kept.update(dict.fromkeys(always))
        room = None if config.max_size is None else max(config.max_size, len(kept))
        for token, count in counts.most_common():
            if count < config.min_frequency or (room is not None and len(kept) >= room):
                break
            kept.setdefault(token)
        return cls(list(kept))

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def encode(self, tokens: Iterable[str]) -> npt.NDArray[np.int32]:
        """Ids of tokens, ``<unk>`` for unknown ones."""
        return np.fromiter(map(self._ids.get, tokens, repeat(self.unknown)), dtype=np.int32)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Tokens of ids."""
        return [self.tokens[position] for position in ids]

    def to_json(self) -> str:
        return json.dumps(self.tokens, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        return cls(json.loads(text))


class FirstSeen:
    """Numbers for tokens whose vocabulary is not known yet, in the order in which they are first
    seen."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__  # called before the token is in it

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def tokens(self) -> list[str]:
        """The tokens, each at its number."""
        return list(self._numbers)

    def encode(self, tokens: Iterable[str]) -> npt.NDArray[np.int32]:
        """Numbers of tokens; a new token gets the next number."""
        return np.fromiter(map(self._numbers.__getitem__, tokens), dtype=np.int32)
