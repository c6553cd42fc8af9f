"""Text that goes from one vocabulary to another, with the special tokens that were drawn in it.

tokens    oil  <eos>  the  <unk>        the first special was drawn, the second is a word
text      "oil <eos> the <unk>"         that was read in a file
specials  ((4, "<eos>"),)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from unroll.data.shards import Ids
from unroll.data.tokenizer import Tokenizer
from unroll.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Passage:
    """A text and its special tokens.

    ``specials``: the name of each, and the position in ``text`` where this name starts. All other
    text is only text, even if it spells the name of a special.
    """

    text: str
    specials: tuple[tuple[int, str], ...] = ()

    def split(self, tokenizer: Tokenizer) -> tuple[list[str], list[int]]:
        """Its tokens, and the positions among them of those that are special. The text between
        specials is split by the tokenizer; each special is one token."""
        tokens: list[str] = []
        positions: list[int] = []
        start = 0
        for place, name in self.specials:
            tokens += tokenizer.tokenize(self.text[start:place])
            positions.append(len(tokens))
            tokens.append(name)
            start = place + len(name)
        return tokens + tokenizer.tokenize(self.text[start:]), positions

    def ids(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> Ids:
        """The ids of its tokens, ``(time,)``. A word that is spelled like a special, such as the
        ``<unk>`` of Penn Treebank, is looked up in the vocabulary like any other word."""
        tokens, _ = self.split(tokenizer)
        return vocabulary.encode(tokens)


def divided(
    tokenizer: Tokenizer, tokens: Sequence[str], specials: Collection[int], length: int
) -> tuple[Passage, Passage]:
    """The first ``length`` tokens and the others, which start with the white space between them.

    ``specials`` are the positions of the tokens that are special.
    """
    whole, first = tokenizer.join(tokens), len(tokenizer.join(tokens[:length]))
    placed = [
        (len(tokenizer.join(tokens[: position + 1])) - len(tokens[position]), tokens[position])
        for position in sorted(specials)
    ]
    before = tuple((place, name) for place, name in placed if place < first)
    after = tuple((place - first, name) for place, name in placed if place >= first)
    return Passage(whole[:first], before), Passage(whole[first:], after)
