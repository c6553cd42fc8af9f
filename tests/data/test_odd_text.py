"""Text that is empty, odd or damaged, and archives that mean harm: read, or refused in one line."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from files import documents, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unroll.data import text_reader
from unroll.data.text_reader import Reader
from unroll.errors import Refused

READ = {
    "one line": ("one line", ["one line"]),
    "Windows line ends": ("a\r\nb\r\n\r\nc", ["a", "b", "c"]),
    "a byte order mark": ("\ufeffa\n", ["a"]),
    "right to left": ("שלום \u202eabc\u202c עולם\n", ["שלום \u202eabc\u202c עולם"]),
    "combining marks": ("e" + "\u0301" * 500 + "\n", ["e" + "\u0301" * 500]),
    "emoji": ("👩\u200d👩\u200d👧 🏳️\u200d🌈\n", ["👩\u200d👩\u200d👧 🏳️\u200d🌈"]),
    "control characters": ("a\x1b[31mb\x07\n", ["a\x1b[31mb\x07"]),
    "empty lines before text": ("\n" * 1_000_000 + "a\n", ["a"]),
}


@pytest.mark.parametrize("name", READ)
def test_odd_text_is_read_as_it_is(text_files, tmp_path: Path, name: str) -> None:
    text, expected = READ[name]
    assert documents(text_files(written(tmp_path, "t.txt", text)))["train"] == expected


REFUSED = {
    "empty": (b"", "contains no text"),
    "only white space": (b" \n\t\r\n\x0b \xe2\x80\xa8\n", "contains no text"),
    "a million empty lines": (b"\n" * 1_000_000, "contains no text"),
    "a byte of no character": (b"ab\xff\n", "offset 2 is not valid utf-8"),
    "UTF-16": ("ab\n".encode("utf-16"), "offset 0 is not valid utf-8"),
    "UTF-16 without a mark": ("ab\n".encode("utf-16-le"), "NUL characters, so it is not utf-8"),
    "NUL": (b"a\n" * 9 + b"\0\n", "NUL characters"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "offset 0 is not valid utf-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_text_is_refused_in_one_line(text_files, tmp_path: Path, name: str) -> None:
    content, line = REFUSED[name]
    with pytest.raises(Refused, match=line) as refused:
        text_files(written(tmp_path, "t.txt", content)).read()
    assert len(str(refused.value).splitlines()) == 1


def test_empty_documents_of_a_table_are_no_documents(text_files, tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", '{"text": ""}\n' * 100_000)
    with pytest.raises(Refused, match="contains no text"):
        text_files(path).read()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary(max_size=200), suffix=st.sampled_from(["txt", "gz", "zip", "csv", "jsonl"])
)
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    from unroll.data.corpus import _documents

    path = written(tmp_path, f"t.{suffix}", content)
    with suppress(Refused):  # and no other error
        found = [row["text"] for row in _documents([str(path)], Reader("line"), "text")]
        assert all(text.strip() for text in found)


def test_a_line_of_50_megabytes_takes_a_few_times_its_size_of_memory(tmp_path: Path) -> None:
    size = 50_000_000
    path = written(tmp_path, "t.txt", b"x" * size)
    tracemalloc.start()
    (line,) = Reader("line").documents(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(line) == size
    assert peak < 5 * size


# Archives


def packed(path: Path, content: bytes, info: zipfile.ZipInfo | str = "a.txt") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(Refused) as refused:
        list(Reader("file").documents(path))
    assert str(path) in str(refused.value)
    return str(refused.value)


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reader, "ALWAYS_READ", 1000)
    monkeypatch.setattr(text_reader, "BLOCK", 500)


@pytest.mark.usefixtures("small_limits")
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    bomb = b"a" * 300_000
    assert "200 times its size" in refusal(packed(tmp_path / "bomb.zip", bomb))
    assert "200 times its size" in refusal(written(tmp_path, "bomb.gz", gzip.compress(bomb)))


@pytest.mark.usefixtures("small_limits")
def test_an_archive_that_lies_about_its_size_is_refused_while_it_is_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "bomb.zip", b"a" * 300_000)
    content = path.read_bytes()
    lying = content.replace(struct.pack("<L", 300_000), struct.pack("<L", 10))
    path.write_bytes(lying)
    refusal(path)


@pytest.mark.usefixtures("small_limits")
def test_text_that_packs_well_is_read_all_the_same(tmp_path: Path) -> None:
    text = " ".join(map(str, range(20_000)))
    path = packed(tmp_path / "t.zip", text.encode())
    assert list(Reader("file").documents(path)) == [text]


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    assert "a link" in refusal(packed(tmp_path / "t.zip", b"/etc/passwd", info))


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b"])
def test_a_path_that_climbs_out_of_an_archive_is_refused(tmp_path: Path, name: str) -> None:
    assert "leaves the archive" in refusal(packed(tmp_path / "t.zip", b"a", name))


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "t.zip", b"a")
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1  # the flag of encryption
    path.write_bytes(content)
    assert "encrypted" in refusal(path)
