"""Files to documents: lines, documents, and the offsets of bad bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from unroll.data import text_reader
from unroll.data.text_reader import (
    BLOCK,
    Reader,
    content_hash,
    existing,
    expand,
    opened,
    source_hash,
)
from unroll.errors import Refused

TEXTS = st.text(alphabet="ab \n\r\x0b\x0c\x1c\x85\u2028\u2029\ufeff\u5206\U0001f600", max_size=30)


def read(
    content: bytes, document: str = "line", encoding: str = "utf-8", block: int = BLOCK
) -> list[str]:
    """The documents of a file of these bytes, read a block at a time."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_reader, "BLOCK", block)
        path = Path(folder) / "t.txt"
        path.write_bytes(content)
        return list(Reader(document, encoding).documents(path))


def lines_of(text: str) -> list[str]:
    """Its lines, separated by newlines only, without empty ones."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.strip() for line in lines if line.strip()]


PARTED = "a\nb\n\n  \nc d\n\n\n\ne"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("line", ["a", "b", "c d", "e"]),
        ("paragraph", ["a\nb", "c d", "e"]),
        ("file", ["a\nb\n\n  \nc d\n\n\n\ne"]),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_document_is_a_line_a_paragraph_or_a_file(document, expected, newline):
    assert read(PARTED.replace("\n", newline).encode(), document) == expected


def test_each_file_of_a_zip_is_a_document_of_its_own(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("first.txt", "a\nb\n")
        archive.writestr("second.txt", "c\n")
    assert list(Reader("file").documents(tmp_path / "two.zip")) == ["a\nb", "c"]


@settings(max_examples=150, deadline=None)
@given(TEXTS)
@example("first\u2028still first\nsecond\u2028still second")
@example("a\n\x0cb\x0c c")
def test_only_newlines_end_a_line(text):
    assert read(text.encode()) == lines_of(text)


def test_the_last_line_is_a_line_like_any_other_with_or_without_its_newline():
    line = "a\u2028b\u2029c\x0bd\x0ce\x1cf\x85g"
    assert read(f"{line}\n{line}\n".encode()) == [line, line]
    assert read(f"{line}\n{line}".encode()) == [line, line]


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(1, 7), st.sampled_from(["utf-8", "utf-16", "gb18030"]))
@example("a\r\nb\r\n\r\nc\r", 2, "utf-8")
def test_where_a_block_ends_does_not_matter(text, block, encoding):
    content = (text + "\n").encode(encoding)
    assert read(content, "line", encoding, block) == lines_of(text)
    for document in ("paragraph", "file"):
        assert read(content, document, encoding, block) == read(content, document, encoding)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("before", [BLOCK - 2, BLOCK - 1, BLOCK])
def test_a_newline_across_two_blocks_is_one_newline(newline, before):
    content = "x" * before + newline + "y" + newline + newline + "z"
    assert read(content.encode(), "paragraph") == ["x" * before + "\ny", "z"]


@pytest.mark.parametrize("before", range(BLOCK - 3, BLOCK + 1))
def test_a_character_across_two_blocks_is_one_character(before):
    content = "x" * before + "\U0001f600\nnext"
    assert read(content.encode()) == ["x" * before + "\U0001f600", "next"]
    gb18030 = content.encode("gb18030")
    assert read(gb18030, encoding="gb18030") == ["x" * before + "\U0001f600", "next"]


def test_a_byte_order_mark_is_no_text():
    assert read(b"\xef\xbb\xbfthe first\nthe second\n") == ["the first", "the second"]
    assert read("the first\n".encode("utf-16"), encoding="utf-16") == ["the first"]


# Bytes that are not of the encoding


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 7), st.sampled_from(["utf-8", "gb18030"]))
def test_a_bad_byte_is_named_with_its_offset_wherever_it_stands(text, block, encoding):
    before = text.encode(encoding)
    with pytest.raises(Refused) as refused:
        read(before + b"\xff\n", "line", encoding, block)
    assert f"t.txt: the byte at offset {len(before)} is not valid {encoding}" in str(refused.value)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(1, 7), st.integers(1, 3))
def test_a_character_cut_off_at_the_end_is_named_with_its_offset(text, block, kept):
    before = text.encode()
    with pytest.raises(Refused, match=f"the byte at offset {len(before)} is not valid utf-8"):
        read(before + "\U0001f600".encode()[:kept], block=block)


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.integers(1, 7))
def test_an_odd_byte_of_utf16_is_refused(text, block):
    assume(text)
    with pytest.raises(Refused, match="is not valid utf-16"):
        read(text.encode("utf-16") + b"x", encoding="utf-16", block=block)


# Paths


def test_a_folder_is_all_its_files_sorted_and_a_glob_those_that_it_matches(tmp_path):
    names = ["b.txt", "a/z.txt", "a/y.md", ".hidden", "a/.hidden.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(path: Path) -> list[str]:
        return [str(file.relative_to(tmp_path)) for file in expand(str(path), "data.path")]

    assert found(tmp_path) == ["a/y.md", "a/z.txt", "b.txt"]
    assert found(tmp_path / "b.txt") == ["b.txt"]
    assert found(tmp_path / "**" / "*.txt") == ["a/z.txt", "b.txt"]
    assert found(tmp_path / "?.txt") == ["b.txt"]


def test_a_path_that_cannot_be_read_is_refused_under_its_key(tmp_path):
    for path in (tmp_path / "nowhere", Path("x" * 5000), Path("nul\0")):
        with pytest.raises(Refused, match=r"^data\.path="):
            existing(path, "data.path")
    with pytest.raises(Refused, match="cannot be read"), opened(tmp_path):
        pass


def test_a_content_hash_is_of_the_bytes_and_not_of_the_name(tmp_path):
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"other")):
        (tmp_path / name).write_bytes(content)
    first, second, other = (content_hash(tmp_path / name) for name in "abc")
    assert first == second != other


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content is hashed, in order."""
    names: list[str] = []
    digest = hashlib.file_digest

    def counted(file, *arguments):
        names.append(Path(file.name).name)
        return digest(file, *arguments)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return names


def test_a_source_is_hashed_once_until_it_changes(tmp_path, monkeypatch, hashed):
    monkeypatch.setattr(text_reader, "SETTLED_SECONDS", 0)
    path = tmp_path / "a"
    path.write_bytes(b"same")
    assert source_hash(path) == source_hash(path) == content_hash(path)
    assert hashed == ["a", "a"]  # one of them by content_hash, which remembers nothing
    times = path.stat()
    (tmp_path / "b").write_bytes(b"else")
    os.utime(tmp_path / "b", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "b").replace(path)
    assert source_hash(path) == content_hash(path)
    assert hashed == ["a"] * 4


def test_a_source_changed_a_moment_ago_is_hashed_again(tmp_path, hashed):
    path = tmp_path / "a"
    for n in range(50):  # faster than the clock of the file system
        path.write_bytes(b"%02d" % n)
        assert source_hash(path) == source_hash(path) == content_hash(path)
    assert len(hashed) == 150


# What an error may quote
