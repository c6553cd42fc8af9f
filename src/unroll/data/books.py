"""Books and songs: The Time Machine (d2l 8.2) and song lyrics (d2l, first edition, 6.3)."""

from __future__ import annotations

import hashlib
import math
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll.data.config import LyricsConfig, TimeMachineConfig
from unroll.data.corpus import TEXT, Corpus, generated
from unroll.data.text_reader import Reader, existing
from unroll.errors import QUOTED, Refused, first_line, require

if TYPE_CHECKING:
    from datasets import Dataset


LARGEST = 1 << 20
"""Bytes of a download; the book has 174 thousand."""


class TimeMachine(Corpus):
    """The Time Machine, reduced to letters or unchanged."""

    config: TimeMachineConfig
    ADDRESS = "http://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt"
    SHA1 = "090b5e7e70c295757f55df93cb0a180b9691891a"

    def files(self) -> dict[str, list[Path]]:
        if self.config.path is not None:
            return {"train": [existing(self.config.path, "data.path")]}
        place = Path(self.config.cache) / "downloads" / "timemachine.txt"
        if not place.is_file():
            download(self.ADDRESS, self.SHA1, place)
        return {"train": [place]}

    @property
    def reading(self) -> dict[str, Any]:
        config = self.config
        return {
            "name": config.name,
            "cleaning": config.cleaning,
            "characters": config.characters,
        }

    def table(self, files: list[Path]) -> Dataset:
        arguments = {"path": str(files[0])} | self.reading
        return generated(_cleaned_lines, arguments, files, self.config.cache)


def _cleaned_lines(
    path: str, name: str, cleaning: str, characters: int | None
) -> Iterator[dict[str, str]]:
    left = math.inf if characters is None else characters
    for line in Reader("line").documents(Path(path)):
        if cleaning == "letters":
            line = re.sub("[^A-Za-z]+", " ", line)
        text = line.strip().lower()[: int(min(left, len(line)))]
        left -= len(text)
        if text:
            yield {TEXT: text}


class Lyrics(Corpus):
    """Song lyrics, as one text."""

    config: LyricsConfig

    def files(self) -> dict[str, list[Path]]:
        return {"train": [existing(self.config.path, "data.path")]}

    @property
    def reading(self) -> dict[str, Any]:
        return {"name": self.config.name, "characters": self.config.characters}

    def table(self, files: list[Path]) -> Dataset:
        arguments = {"path": str(files[0])} | self.reading
        return generated(_one_text, arguments, files, self.config.cache)


def _one_text(path: str, name: str, characters: int | None) -> Iterator[dict[str, str]]:
    text = "\n".join(Reader("file").documents(Path(path))).replace("\n", " ")
    require(text, f"data.path={path} contains no text")
    yield {TEXT: text[:characters]}


def download(address: str, sha1: str, place: Path) -> None:
    """Download a file, and keep it only if its SHA-1 is ``sha1``.

    Raises:
        Refused: it cannot be downloaded, or is another file.
    """
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:  # noqa: S310  ADDRESS
            content = answer.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise Refused(
            f"cannot download {address} ({first_line(error, QUOTED)}): set data.path= to a copy "
            "of the file"
        ) from error
    require(
        len(content) <= LARGEST,
        f"{address} gave more than {LARGEST:,} bytes: set data.path= to a correct copy",
    )
    found = hashlib.sha1(content, usedforsecurity=False).hexdigest()  # as d2l publishes it
    require(
        found == sha1,
        f"{address} gave a file with SHA-1 {found}, not {sha1}: set data.path= to a correct copy",
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    writing = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        writing.write_bytes(content)
        os.replace(writing, place)
    finally:
        writing.unlink(missing_ok=True)
