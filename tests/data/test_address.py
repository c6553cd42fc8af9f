"""A file at an address gives the documents of the file itself, or one line says why not."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import documents, written
from servers import files, serving

from unroll.data import text_reader
from unroll.data.address import Address
from unroll.data.text_reader import Reader
from unroll.errors import Refused

DOCUMENTS = [f"document {n} — with\tsome {n % 7} words" for n in range(3000)]
LINES = "\n".join(DOCUMENTS).encode()
ROWS = "".join(json.dumps({"text": text, "other": 1}) + "\n" for text in DOCUMENTS).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    written(folder, "a.txt", LINES)
    written(folder, "a.txt.gz", gzip.compress(LINES))
    written(folder, "a.jsonl", ROWS)
    written(folder, "a.csv", b"text,other\n" + "".join(f'"{d}",1\n' for d in DOCUMENTS).encode())
    pq.write_table(pa.table({"text": DOCUMENTS}), folder / "a.parquet")
    written(folder, "a.zip", b"")
    return folder


@pytest.mark.parametrize("suffix", ["txt", "txt.gz", "jsonl", "csv", "parquet"])
def test_the_documents_at_an_address_are_those_of_the_file(text_files, folder, suffix):
    with serving(files(folder)) as server:
        found = documents(text_files(f"{server}/a.{suffix}"))
    assert found == documents(text_files(folder / f"a.{suffix}")) == {"train": DOCUMENTS}
    assert documents(text_files(f"file://{folder}/a.{suffix}")) == found


def test_with_a_limit_the_rest_of_the_file_is_not_read(text_files, tmp_path):
    handler = files(written(tmp_path / "served", "a.txt", LINES * 400).parent)
    with serving(handler) as server:
        found = documents(text_files(f"{server}/a.txt", limit=10))
    assert found == {"train": DOCUMENTS[:10]}
    assert handler.sent["/a.txt"] < len(LINES) * 200


def test_a_limit_ends_the_reading_of_local_files_too(text_files, tmp_path):
    path = written(tmp_path, "t.txt", b"one\n" + b"two " * (1 << 20) + b"\xff")
    assert documents(text_files(path, limit=1)) == {"train": ["one"]}
    with pytest.raises(Refused, match="not valid utf-8"):
        documents(text_files(path))


def test_changed_content_has_another_fingerprint_and_the_same_content_the_same(text_files, folder):
    with serving(files(folder)) as server:
        before = [text_files(f"{server}/a.txt").fingerprint() for _ in range(2)]
        (folder / "a.txt").write_bytes(b"other")
        os.utime(folder / "a.txt", (0, 0))
        after = text_files(f"{server}/a.txt").fingerprint()
    assert before[0] == before[1] != after


def test_files_of_one_name_and_time_at_two_addresses_have_different_fingerprints(
    text_files, tmp_path
):
    for folder, text in (("a", b"one"), ("b", b"two")):
        os.utime(written(tmp_path / folder, "t.txt", text), (0, 0))
    with serving(files(tmp_path / "a")) as one, serving(files(tmp_path / "b")) as two:
        first, other = (text_files(f"{server}/t.txt").fingerprint() for server in (one, two))
    assert first != other


def test_another_size_at_an_address_is_another_fingerprint(text_files, tmp_path):
    path = written(tmp_path, "t.txt", b"one")
    os.utime(path, (0, 0))
    with serving(files(tmp_path)) as server:
        before = text_files(f"{server}/t.txt").fingerprint()
        path.write_bytes(b"one more")
        os.utime(path, (0, 0))
        assert text_files(f"{server}/t.txt").fingerprint() != before


def test_a_password_in_an_address_does_not_change_its_fingerprint(text_files, tmp_path):
    written(tmp_path, "t.txt", b"one")
    with serving(files(tmp_path)) as server:
        found = [
            text_files(f"{server}/t.txt".replace("//", f"//me:{password}@")).fingerprint()
            for password in ("old", "new")
        ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("{}/absent.txt", "absent.txt cannot be read: 404"),
        ("{}/a.zip", "a.zip is a zip file, which is not read from a server: download it"),
        ("http://127.0.0.1:9/a.txt", "cannot be read: .*; correct the address, or try again"),
        ("nonsense://place/a.txt", "cannot be read: Protocol not known: nonsense"),
    ],
)
def test_an_address_that_does_not_answer_is_one_line(text_files, folder, address, line):
    with serving(files(folder)) as server, pytest.raises(Refused, match=line) as raised:
        documents(text_files(address.format(server)))
    assert "\n" not in str(raised.value)


def test_a_server_that_does_not_tell_versions_is_refused(folder):
    with (
        serving(files(folder, silent=("Last-Modified",))) as server,
        pytest.raises(Refused, match="tells neither an ETag nor when the file was changed"),
    ):
        _ = Address(f"{server}/a.txt").version


@pytest.mark.parametrize(
    "changes", [{"extra": ("Accept-Ranges", "none")}, {"silent": ("Content-Length",)}]
)
def test_parquet_from_a_server_that_sends_no_parts_is_one_line(text_files, folder, changes):
    with (
        serving(files(folder, **changes)) as server,
        pytest.raises(Refused, match=r"does not send parts of it .*: download it") as raised,
    ):
        documents(text_files(f"{server}/a.parquet"))
    assert "\n" not in str(raised.value)


def test_gz_from_a_server_that_tells_no_size_is_read_and_a_bomb_refused(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(text_reader, "ALWAYS_READ", 1000)
    monkeypatch.setattr(text_reader, "BLOCK", 5000)
    written(folder, "bomb.gz", gzip.compress(b"a" * 30_000_000))
    with serving(files(folder, silent=("Content-Length",))) as server:
        address = Address(f"{server}/a.txt.gz")
        assert address.stat().st_size == 0
        assert list(Reader("line").documents(address)) == DOCUMENTS
        with pytest.raises(Refused, match="unpacks to more than 200 times its size"):
            list(Reader("line").documents(Address(f"{server}/bomb.gz")))


def test_a_transfer_that_breaks_off_is_one_line_and_leaves_no_documents(text_files, folder):
    written(folder, "broken.txt", LINES)
    with serving(files(folder)) as server:
        with pytest.raises(Refused, match=r"broken.txt .*broke off"):
            documents(text_files(f"{server}/broken.txt"))
        with pytest.raises(Refused, match=r"broken.txt .*broke off"):
            documents(text_files(f"{server}/broken.txt"))
