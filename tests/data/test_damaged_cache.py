"""A damaged entry of the cache is made again, and a full disk leaves none behind."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files import documents, written

from unroll.data import token_stream
from unroll.data.token_stream import Encoded, encode
from unroll.errors import explain


@pytest.fixture
def encoded(text_files, tmp_path: Path) -> Callable[[], Encoded]:
    path = written(tmp_path, "t.txt", "the first line\nand the second\n")

    def encoded_() -> Encoded:
        corpus = text_files(path)
        return encode(corpus.config, corpus)

    return encoded_


def entry(tmp_path: Path) -> Path:
    (folder,) = (path for path in (tmp_path / "cache" / "streams").iterdir() if path.is_dir())
    return folder


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"\0\0\0\0",
    "a bit": lambda content: bytes([content[0] ^ 1]) + content[1:],
}
FILES = ["meta.json", "vocabulary.json", "tokenizer.json", "train-0.tokens", "train.offsets"]


@pytest.mark.parametrize("name", [*FILES, token_stream.DIGESTS])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_an_entry_is_made_again_with_one_line(
    encoded, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    before = np.array(encoded().streams["train"].tokens)
    path = entry(tmp_path) / name
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    capsys.readouterr()
    assert np.array_equal(encoded().streams["train"].tokens, before)
    assert capsys.readouterr().out.splitlines() == [
        f"the cache entry {path.parent} is damaged: it is made again"
    ]
    assert path.read_bytes() == whole


def test_a_missing_file_of_an_entry_is_made_again(encoded, tmp_path: Path) -> None:
    before = np.array(encoded().streams["train"].tokens)
    (entry(tmp_path) / "train-0.tokens").unlink()
    assert np.array_equal(encoded().streams["train"].tokens, before)


def test_a_whole_entry_is_read_and_not_made_again(
    encoded, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded()
    monkeypatch.setattr(token_stream, "_write", None)
    encoded()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damage", ["empty", "cut off"])
def test_damaged_documents_are_read_again_from_their_files(
    text_files, tmp_path: Path, damage: str
) -> None:
    path = written(tmp_path, "t.txt", "one\ntwo\n" * 500)
    expected = documents(text_files(path))
    for arrow in (tmp_path / "cache").rglob("*.arrow"):
        arrow.write_bytes(DAMAGE[damage](arrow.read_bytes()))
    assert documents(text_files(path)) == expected


@pytest.mark.parametrize("place", ["write_text", "open", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_leaves_no_entry_and_is_one_line(
    encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, code: int
) -> None:
    real = getattr(Path, place)

    def full(self: Path, *arguments: Any, **keywords: Any) -> Any:
        if "cache" in self.parts and (place != "open" or "w" in "".join(map(str, arguments))):
            raise OSError(code, "the disk is full", str(self))
        return real(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, place, full)
        with pytest.raises(OSError, match="the disk is full") as raised:
            encoded()
    assert explain(raised.value)[0] is not None
    assert not [path for path in (tmp_path / "cache").rglob("*.tokens")]
    assert len(encoded().streams["train"]) == 6
