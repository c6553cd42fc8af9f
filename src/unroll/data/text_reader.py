"""Files to documents: find, open, unpack and decode them as a stream."""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import os
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from unroll.data.address import BLOCK, Address, is_address
from unroll.errors import QUOTED, Refused, bounded, first_line, require

File = Path | Address
LARGEST_RATIO, ALWAYS_READ = 200, 1 << 26
"""A packed file whose content is more than so many times as long, and longer than so many bytes, is
a bomb. Text packs to a tenth; deflate's own limit is a thousandth."""
SETTLED_SECONDS = 2
"""A file that was changed less long ago may change again with the same times: the clocks of file
systems go in steps of up to so many seconds."""


def expand(path: str, key: str) -> Sequence[File]:
    """The files of a path, a folder or a glob, sorted, without hidden ones; or an address.

    Raises:
        Refused: there are none.
    """
    if is_address(path):
        return [Address(path)]
    if any(sign in path for sign in "*?[") and not Path(path).exists():
        found = [Path(name) for name in glob.glob(path, recursive=True)]
        require(found, f"{key}={path} matches no file")
    else:
        place = existing(path, key)
        found = list(place.rglob("*")) if place.is_dir() else [place]
    files = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    require(files, f"{key}={path} contains no file")
    return files


def existing(given: str | Path, key: str = "") -> Path:
    """``given`` as a path.

    Raises:
        Refused: it does not exist.
    """
    require(str(given), f"{key}= is empty: give a path")
    path = Path(given)
    named = f"{key}={path}" if key else str(path)
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise Refused(f"{named} is not a path: {error}") from error
    require(exists, f"{named} does not exist")
    return path


@contextmanager
def opened(path: File) -> Iterator[BufferedReader]:
    """The file, open for reading bytes.

    Raises:
        Refused: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from error


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


class Unpacked:
    """The content of a packed file of ``size`` bytes; of an unknown size, which is 0, if ``taken``
    tells how many of its bytes were read so far.

    Raises:
        Refused: it is a bomb.
    """

    def __init__(
        self, name: str, stream: Readable, size: int, taken: Callable[[], int] = int
    ) -> None:
        self.name, self.stream, self.size, self.taken = name, stream, size, taken
        self.unpacked = 0

    def read(self, size: int, /) -> bytes:
        block = self.stream.read(size)
        self.unpacked += len(block)
        require(
            self.unpacked <= max(ALWAYS_READ, LARGEST_RATIO * max(self.size, self.taken())),
            f"{self.name} unpacks to more than {LARGEST_RATIO} times its size: it is not read; "
            "unpack it yourself if it is right",
        )
        return block


@dataclass(frozen=True)
class Reader:
    """Documents of plain, gz and zip files, decoded as a stream."""

    document: str
    encoding: str = "utf-8"

    def documents(self, path: File) -> Iterator[str]:
        """Documents of one file, without empty ones.

        Raises:
            Refused: the file is damaged, or a byte is not valid in the encoding (the message
                gives its offset).
        """
        for name, stream in self._members(path):
            yield from _grouped(self._lines(name, stream), self.document)

    def lines(self, path: File) -> Iterator[str]:
        """Lines of one file, each with its newline (the last may have none).

        Raises:
            Refused: as ``documents``.
        """
        for name, stream in self._members(path):
            yield from self._lines(name, stream)

    def _members(self, path: File) -> Iterator[tuple[str, Readable]]:
        if path.suffix == ".zip":
            try:
                with opened(path) as packed, zipfile.ZipFile(packed) as archive:
                    members = [info for info in archive.infolist() if not info.is_dir()]
                    require(members, f"{path} contains no file")
                    for info in members:
                        parts = Path(info.filename).parts
                        require(
                            ".." not in parts and not Path(info.filename).is_absolute(),
                            f"{path} contains {bounded(repr(info.filename), QUOTED)}, a path that "
                            "leaves the archive: it is not read",
                        )
                        require(
                            not stat.S_ISLNK(info.external_attr >> 16),
                            f"{path} contains {bounded(repr(info.filename), QUOTED)}, a link: it "
                            "is not read",
                        )
                    for info in members:
                        name = f"{path}:{info.filename}"
                        with archive.open(info) as member:
                            yield name, Unpacked(name, member, info.compress_size)
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
                raise Refused(
                    f"{path} cannot be read as a zip file: {first_line(error, QUOTED)}"
                ) from error
        elif path.suffix == ".gz":
            with opened(path) as packed, gzip.GzipFile(fileobj=packed) as file:
                yield str(path), Unpacked(str(path), file, path.stat().st_size, packed.tell)
        else:
            with opened(path) as file:
                yield str(path), file

    def _lines(self, name: str, stream: Readable) -> Iterator[str]:
        """Lines, unchanged except that every kind of newline becomes one."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        offset, first = 0, True
        held: list[str] = []  # the start of a line that is not complete yet
        while True:
            try:
                block = stream.read(BLOCK)
            except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                raise Refused(f"{name} is damaged: {first_line(error, QUOTED)}") from error
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeError as error:
                within = getattr(error, "start", 0)
                raise Refused(
                    f"{name}: the byte at offset {offset - pending + within} is not valid "
                    f"{self.encoding}: correct the file, or set data.encoding"
                ) from error
            require(
                "\0" not in text,
                f"{name} contains NUL characters, so it is not {self.encoding} text: set "
                "data.encoding (utf-16, perhaps), or leave the file out",
            )
            offset += len(block)
            if first and text:
                text, first = text.removeprefix("\ufeff"), False
            held.append(text)
            if block and not ("\n" in text or "\r" in text):
                continue
            text = "".join(held)
            waiting = bool(block) and text.endswith("\r")  # for a newline at the next start
            body = text[:-1] if waiting else text
            lines = body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
            held = [lines.pop() + ("\r" if waiting else "")]
            yield from (line + "\n" for line in lines)
            if not block:
                break
        if held[0]:
            yield held[0]


def _grouped(lines: Iterator[str], document: str) -> Iterator[str]:
    """Lines as documents: each line, each block between empty lines, or all lines."""
    block: list[str] = []
    for line in lines:
        if document == "line":
            if line.strip():
                yield line.strip()
        elif document == "paragraph" and not line.strip():
            if block:
                yield "".join(block).strip()
            block = []
        else:
            block.append(line)
    text = "".join(block).strip()
    if text:
        yield text


def content_hash(path: Path) -> bytes:
    """A hash of the content of a file.

    Raises:
        Refused: it cannot be read.
    """
    with opened(path) as file:
        return _digest(file)


def source_hash(path: File) -> bytes:
    """``content_hash`` of a file that a corpus is read from, remembered by this process until the
    file changes; at an address, a hash of what tells its content from another.

    Raises:
        Refused: it cannot be read, or its server does not tell a version.
    """
    if isinstance(path, Address):
        return hashlib.blake2b(path.identity.encode(), digest_size=16).digest()
    with opened(path) as file:
        found = os.fstat(file.fileno())
        changed = max(found.st_mtime_ns, found.st_ctime_ns)
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        settled = time.time_ns() - changed >= SETTLED_SECONDS * 10**9
        digest = _remembered.get(key) or _digest(file)
    if settled:
        _remembered[key] = digest
    return digest


_remembered: dict[tuple[int, ...], bytes] = {}
"""Digests by device, inode, size and times of a file."""


def _digest(file: BufferedReader) -> bytes:
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
