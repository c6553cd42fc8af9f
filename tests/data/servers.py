"""Servers on this machine: one of files, and one that answers as the Hugging Face hub does."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "a" * 40


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Files(SimpleHTTPRequestHandler):
    """The files of a folder, without byte ranges. What is sent of each is counted in ``sent``; a
    request for ``broken`` ends in the middle; ``silent`` headers are left out, and one ``extra`` is
    sent."""

    sent: dict[str, int]
    broken = "broken"
    silent: tuple[str, ...] = ()
    extra: tuple[str, str] | None = None

    def send_header(self, keyword: str, value: str) -> None:
        if keyword not in self.silent:
            super().send_header(keyword, value)

    def end_headers(self) -> None:
        if self.extra is not None:
            super().send_header(*self.extra)
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        if self.broken in self.path:
            content = content[: len(content) // 2]
        for start in range(0, len(content), 1 << 16):
            try:
                outputfile.write(content[start : start + (1 << 16)])
            except OSError:  # the client has read enough
                return
            self.sent[self.path] = start

    def log_message(self, *_: Any) -> None: ...


def files(folder: Path, **changes: Any) -> Callable[..., BaseHTTPRequestHandler]:
    handler = type("Served", (Files,), {"sent": {}} | changes)
    made = partial(handler, directory=str(folder))
    made.sent = handler.sent  # type: ignore[attr-defined]
    return made


class Repository(BaseHTTPRequestHandler):
    """The data set ``me/tiny`` with these ``files``, at one commit."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if re.fullmatch(r"/api/datasets/me/tiny(/revision/.*)?", path):
            self.answer(json.dumps({"id": "me/tiny", "sha": COMMIT, "tags": []}).encode())
        elif path.startswith("/api/datasets/me/tiny/tree/"):
            found = [
                {"type": "file", "path": name, "size": len(content), "oid": "b" * 40}
                for name, content in self.files.items()
            ]
            self.answer(json.dumps(found).encode())
        elif (name := path.rpartition("/")[2]) in self.files and f"/resolve/{COMMIT}/" in path:
            self.part_of(self.files[name], name)
        else:
            self.answer(b"{}", 404, {"X-Error-Code": "EntryNotFound"})

    def part_of(self, content: bytes, name: str) -> None:
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if (asked := self.headers.get("Range")) is None:
            self.answer(content, 200, headers)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        end = min(int(last or len(content)) + 1, len(content))
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
        self.answer(content[int(first) : end], 206, headers)

    def answer(self, body: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...
