"""A file at an address, with what the readers of files ask of a path; read while it streams by."""

from __future__ import annotations

import io
import json
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from unroll.errors import QUOTED, Refused, first_line, require, without_password

BLOCK = 1 << 20
"""Bytes read at a time."""
CONNECT_SECONDS, SILENT_SECONDS = 10, 60
"""How long a server may take to answer, and may send nothing."""
RANDOM_ACCESS = ".parquet"
"""Files that are read in parts, from the end on: their server must know byte ranges."""
VERSIONS = ("ETag", "etag", "Last-Modified", "mtime")


def is_address(place: str) -> bool:
    """Whether a place is an address, not a path."""
    return "://" in place


def file_at(place: str) -> Path | Address:
    """The file at a path or an address."""
    return Address(place) if is_address(place) else Path(place)


class Address:
    """A file that is opened through fsspec, which knows http, https and others."""

    def __init__(self, address: str) -> None:
        self.address = address
        path = PurePosixPath(urlsplit(address).path)
        self.name, self.suffix = path.name, path.suffix

    def __str__(self) -> str:
        return self.address

    @property
    def identity(self) -> str:
        """What tells one content from another: the address without user and password, the size,
        and the version.

        Raises:
            Refused: as ``version``.
        """
        return json.dumps([without_password(self.address), self.stat().st_size, self.version])

    @property
    def version(self) -> str:
        """All that the server says of the version: its ETag, and when it was changed.

        Raises:
            Refused: it does not answer, or says nothing of the kind.
        """
        found = [f"{key}={self._info[key]}" for key in VERSIONS if self._info.get(key)]
        require(
            found,
            f"the server of {self} tells neither an ETag nor when the file was changed, so that a "
            "change could not be seen: download the file and give its path",
        )
        return " ".join(found)

    def stat(self) -> Any:
        """As a path's: the size, 0 if the server does not tell."""
        return SimpleNamespace(st_size=self._info.get("size") or 0)

    def open(self, mode: str) -> io.BufferedReader:
        """The content, in one request unless the format needs random access.

        Raises:
            Refused: it is a zip file, whose table of contents is at its end.
            OSError: the server does not answer, or has no such file.
        """
        assert mode == "rb"
        require(
            self.suffix != ".zip",
            f"{self} is a zip file, which is not read from a server: download it and give its path",
        )
        system, place = self._located
        streams = self.suffix != RANDOM_ACCESS and urlsplit(self.address).scheme != "file"
        try:
            found = system.open(place, mode, **({"block_size": 0} if streams else {}))
        except Exception as error:
            raise OSError(_why(error)) from error
        return io.BufferedReader(_Stream(found), BLOCK)

    @cached_property
    def _located(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        options = {}
        if urlsplit(self.address).scheme in ("http", "https"):
            from aiohttp import ClientTimeout

            # no limit for the time that a whole file takes
            limit = ClientTimeout(None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
            options = {"client_kwargs": {"timeout": limit, "trust_env": True}}
        try:
            system, place = url_to_fs(self.address, **options)
        except Exception as error:  # an unknown protocol, or one whose package is not installed
            raise Refused(f"{self} cannot be read: {_why(error)}") from error
        return system, place

    @cached_property
    def _info(self) -> dict[str, Any]:
        system, place = self._located
        try:
            return dict(system.info(place))
        except Exception as error:
            raise Refused(
                f"{self} cannot be read: {_why(error)}; correct the address, or try again when "
                "its server answers"
            ) from error


class _Stream(io.RawIOBase):
    """A stream of fsspec whose errors are all OSError."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            self._stream.seek(offset, whence)
        except Exception as error:
            raise OSError(
                f"its server does not send parts of it ({_why(error)}): download it and give its "
                "path"
            ) from error
        return self.tell()

    def tell(self) -> int:
        try:
            return int(self._stream.tell())
        except Exception as error:
            raise OSError(_why(error)) from error

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        try:
            block = self._stream.read(len(view))
        except Exception as error:
            raise OSError(f"the transfer broke off ({_why(error)})") from error
        view[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _why(error: BaseException) -> str:
    """The line of the error that another one came from: fsspec's own names only the address."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error, QUOTED) or type(error).__name__
