"""Articles of English Wikipedia, from a dump that is part of the gensim package.

The dump is a bzip2 file of XML with a ``page`` for each title (MediaWiki's export format). Pages of
the namespace 0 that do not only redirect to another page are articles.
"""

from __future__ import annotations

import bz2
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import iterparse

from unroll.data.config import WikipediaConfig
from unroll.data.corpus import TEXT, Corpus, generated, part_of_gensim
from unroll.data.text_reader import opened
from unroll.errors import require

if TYPE_CHECKING:
    from datasets import Dataset

FORMAT = 1  # increase it when the same dump gives another text
FEWEST_WORDS = 200
"""Shorter articles are left out: most of them only tell apart what has the same name."""
HELD_OUT = {"valid": 8, "test": 9}
"""Of every ten articles, in the order of the dump, the positions of those that are held out."""


class Wikipedia(Corpus):
    """Articles as text, one a document: title, headings and paragraphs. Every tenth article is
    for validation, and every tenth for testing."""

    config: WikipediaConfig
    FILE = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"

    def files(self) -> dict[str, list[Path]]:
        """The dump.

        Raises:
            Refused: gensim is not installed, or its dump is missing, damaged or another one.
        """
        dump = part_of_gensim(self.FILE, self.config.name)
        with opened(dump) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        require(
            found == self.SHA256,
            f"{dump} is damaged, or another dump: its SHA-256 begins with {found[:8]}, not with "
            f"{self.SHA256[:8]}: pip install --force-reinstall gensim",
        )
        return {"train": [dump]}

    @property
    def reading(self) -> dict[str, Any]:
        return {"name": self.config.name, "format": FORMAT}

    def table(self, files: list[Path]) -> Dataset:
        arguments = {"path": str(files[0]), "text_format": FORMAT}
        return generated(_documents, arguments, files, self.config.cache)

    def tables(self) -> dict[str, Dataset]:
        (files,) = self.files().values()
        articles = self.table(files)
        rows = {split: range(place, len(articles), 10) for split, place in HELD_OUT.items()}
        held = set().union(*rows.values())
        train = [row for row in range(len(articles)) if row not in held]
        return {split: articles.select(kept) for split, kept in {"train": train, **rows}.items()}


def _documents(path: str, text_format: int) -> Iterator[dict[str, str]]:
    """The articles that are long enough. ``text_format`` only names the cache entry."""
    from unroll.data.wikitext import paragraphs

    for title, wikitext in pages(Path(path)):
        lines = paragraphs(wikitext)
        if sum(len(line.split()) for line in lines) >= FEWEST_WORDS:
            yield {TEXT: "\n".join([title, "", *lines, "", ""])}


def pages(path: Path) -> Iterator[tuple[str, str]]:
    """Title and wikitext of each article of a dump."""
    with bz2.open(path) as dump:
        for _, page in iterparse(dump):  # noqa: S314  the checksum of the file is known
            if not page.tag.endswith("}page"):
                continue
            if page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None:
                title, wikitext = page.findtext("{*}title"), page.findtext("{*}revision/{*}text")
                yield title or "", wikitext or ""
            page.clear()
