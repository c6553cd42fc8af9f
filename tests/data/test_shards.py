"""Shards equal the single file, whatever their number, the processes and the interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from files import written
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.data import shards
from unroll.data.shards import Shards
from unroll.data.token_stream import Encoded, encode
from unroll.errors import Refused
from unroll.registry import build

PARTS = st.lists(st.lists(st.integers(0, 99), max_size=9), min_size=1, max_size=6)


def joined(parts: list[list[int]]) -> tuple[Shards, np.ndarray]:
    arrays = [np.array(part, np.int32) for part in parts]
    return Shards(arrays), np.concatenate(arrays)


@given(PARTS, st.data())
def test_any_slice_of_shards_is_that_of_one_array(parts, data):
    found, expected = joined(parts)
    ends = st.none() | st.integers(-60, 60)
    place = slice(data.draw(ends), data.draw(ends))
    assert found[place].tolist() == expected[place].tolist()
    assert (len(found), found[place].dtype) == (len(expected), np.int32)
    assert np.array_equal(np.asarray(found), expected)
    assert np.asarray(found, np.int64).dtype == np.int64


@given(PARTS.filter(any), st.data())
def test_any_positions_in_shards_have_the_ids_of_one_array(parts, data):
    found, expected = joined(parts)
    place = np.array(data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=8)), int)
    assert found[place].tolist() == expected[place].tolist()
    assert found[np.stack([place, place])].tolist() == expected[np.stack([place, place])].tolist()
    with pytest.raises(IndexError):
        found[np.array([len(expected)])]


def test_a_slice_within_a_shard_is_not_copied():
    found, _ = joined([[1, 2, 3], [], [4, 5]])
    assert np.shares_memory(found[3:5], found.parts[2])


# A corpus in shards


@pytest.fixture
def sharded(text_files, tmp_path: Path) -> Callable[..., Encoded]:
    """The same lines, encoded into a cache of their own by number of shards."""
    lines = "".join(f"line {n} has the words {n * n % 17} and {n % 5}\n" for n in range(200))
    path = written(tmp_path, "t.txt", lines)

    def sharded_(count: int, **changes) -> Encoded:
        cache = str(tmp_path / f"cache{count}")
        corpus = text_files(path, shards=count, cache=cache, test_fraction=0.1, **changes)
        return encode(corpus.config, corpus)

    return sharded_


def files(tmp_path: Path, count: int) -> list[str]:
    return sorted(path.name for path in (tmp_path / f"cache{count}" / "streams").glob("*/*"))


def test_shards_written_by_processes_equal_the_single_file(sharded, tmp_path, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    one, eight = sharded(1), sharded(8)
    assert [f"train-{n}.tokens" in files(tmp_path, 8) for n in range(9)] == [True] * 8 + [False]
    assert eight.vocabulary.tokens == one.vocabulary.tokens
    assert (eight.fingerprint, eight.corpus_fingerprint) == (
        one.fingerprint,
        one.corpus_fingerprint,
    )
    assert eight.counts() == one.counts()
    for split, stream in one.streams.items():
        assert isinstance(eight.streams[split].tokens, Shards)
        assert np.array_equal(eight.streams[split].tokens, stream.tokens)
        assert np.array_equal(eight.streams[split].offsets, stream.offsets)
        assert eight.streams[split].characters == stream.characters


@pytest.mark.parametrize("name", ["windows", "random", "sequential"])
def test_batches_of_shards_are_those_of_the_single_file(sharded, composed, name, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    monkeypatch.setattr("unroll.data.token_stream.RELEASE_AFTER", 50)
    config = composed(
        f"data/batching={name}", "data.batching.length=5", "data.batching.batch_size=4"
    ).data.batching
    batching = build("data/batching", config)
    one, eight = (sharded(count).streams["train"] for count in (1, 8))
    assert batching.steps(eight) == batching.steps(one)
    for found, expected in zip(
        batching.batches(eight, 1, 0), batching.batches(one, 1, 0), strict=True
    ):
        assert found.inputs.equal(expected.inputs)
        assert found.targets.equal(expected.targets)


def test_an_entry_is_read_with_any_number_of_shards(text_files, tmp_path, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    corpora = [text_files(written(tmp_path, "t.txt", "a b\nc\n"), shards=n) for n in (2, 1)]
    first, second = (encode(corpus.config, corpus) for corpus in corpora)
    assert isinstance(second.streams["train"].tokens, Shards)
    assert second.fingerprint == first.fingerprint
    (entry,) = (path for path in (tmp_path / "cache/streams").iterdir() if path.is_dir())
    assert entry.name == first.fingerprint


@pytest.mark.parametrize("damage", ["missing", "cut short", "a bit"])
def test_a_damaged_shard_is_made_again_with_one_line(
    sharded, tmp_path, capsys, monkeypatch, damage
):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    before = np.asarray(sharded(8).streams["train"].tokens)
    (path,) = (tmp_path / "cache8").rglob("train-5.tokens")
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[:-4] if damage == "cut short" else bytes([whole[0] ^ 1]) + whole[1:])
    capsys.readouterr()
    assert np.array_equal(sharded(8).streams["train"].tokens, before)
    out = capsys.readouterr().out
    assert out == f"the cache entry {path.parent} is damaged: it is made again\n"
    assert path.read_bytes() == whole


# A writing that stops


class Stopped(BaseException):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("append_eos", [False, True])
def test_a_writing_that_was_interrupted_goes_on_from_its_finished_shards(
    sharded, tmp_path, monkeypatch, append_eos
):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    real, made = shards.number, []

    def stopping(stem, *arguments):
        if len(made) == 3:
            raise Stopped
        made.append(stem)
        return real(stem, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("unroll.data.token_stream.number", stopping)
        with pytest.raises(Stopped):
            sharded(8, append_eos=append_eos)
    assert not list((tmp_path / "cache8").rglob("*.tokens"))
    (damaged,) = (path for path in (tmp_path / "cache8").rglob("train-1.numbers"))
    damaged.write_bytes(b"")
    tokenized = []
    monkeypatch.setattr(
        "unroll.data.shards.texts",
        lambda table: tokenized.append(len(table)) or iter(table["text"]),
    )
    found, expected = (sharded(count, append_eos=append_eos) for count in (8, 1))
    assert len(tokenized) == 14 + 2, "16 without the two that were finished, and 2 of one file"
    assert np.array_equal(found.streams["train"].tokens, expected.streams["train"].tokens)
    assert found.vocabulary.tokens == expected.vocabulary.tokens
    assert not list((tmp_path / "cache8").rglob(".parts-*"))


ENCODE = """
import sys, time
from unroll.app import compose
from unroll.data import shards, token_stream
from unroll.data.token_stream import encode
from unroll.registry import build
real = shards.number
def slow(*arguments):
    found = real(*arguments)
    print("shard", flush=True)
    time.sleep({pause})
    return found
token_stream.number = slow
data = compose(["data=text_files", "data.document=line", "data.path=" + {path!r}, "data.shards=4",
                "data.valid_fraction=0", "data.test_fraction=0", "data.cache=" + {cache!r}]).data
print(encode(data, build("data", data)).streams["train"].tokens[:].tolist())
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_writing_that_was_killed_leaves_no_entry_and_is_finished_by_the_next(tmp_path, processes):
    lines = "".join(f"line {n} of {n % 7}\n" for n in range(50))
    path, cache = written(tmp_path, "t.txt", lines), tmp_path / "cache"
    words = {"path": str(path), "cache": str(cache)}
    environment = os.environ | {"LOKY_MAX_CPU_COUNT": processes}

    def process(pause: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", ENCODE.format(pause=pause, **words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    with process(20) as running:  # two workers outlive it, and write beside the next ones
        assert running.stdout is not None
        assert running.stdout.readline() == "shard\n"
        running.send_signal(signal.SIGKILL)
    assert 1 <= len(list(cache.rglob("train-*.json"))) <= 2
    assert not list(cache.rglob("digests.json"))
    with process(0) as running:
        out, _ = running.communicate(timeout=100)
    *_, last = out.splitlines()
    ids = json.loads(last)
    with process(0) as running:
        assert json.loads(running.communicate(timeout=100)[0]) == ids, "read from the cache"
    assert len(ids) == 4 * 50
    assert [each.name for each in (cache / "streams").iterdir() if each.name[0] == "."] == []


def test_a_process_that_is_killed_while_it_writes_is_one_line(sharded, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr("unroll.data.token_stream.number", killed)
    with pytest.raises(Refused, match="LOKY_MAX_CPU_COUNT=1"):
        sharded(2)


def killed(*_arguments) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=9)), st.integers(1, 40))
def test_blocks_hold_all_documents_in_order_and_few_characters(documents, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CHARACTERS_AT_ONCE", at_once)
        found = list(shards.blocks(documents))
    assert [text for block in found for text in block] == documents
    for block in found:
        assert block
        assert sum(len(text) + 1 for text in block[:-1]) < at_once
