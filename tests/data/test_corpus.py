"""Documents per split: held out, limited, fingerprinted."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from files import documents, written

from unroll.data import text_reader
from unroll.data.batching import WindowIndex
from unroll.data.text_reader import BLOCK
from unroll.data.token_stream import encode
from unroll.errors import Refused
from unroll.registry import build


@pytest.fixture
def lee_news(composed, tmp_path):
    base = replace(composed("data=lee_news").data, cache=str(tmp_path / "cache"))
    return lambda **changes: build("data", replace(base, **changes))


# Lee news


def test_lee_news_has_its_known_articles_words_and_windows(lee_news):
    corpus = lee_news(valid_fraction=0.0)
    found = documents(corpus)
    words = {split: [len(text.lower().split()) for text in found[split]] for split in found}
    assert set(found) == {"train", "test"}
    assert (len(words["train"]), len(words["test"])) == (300, 50)
    assert (sum(words["train"]), sum(words["test"])) == (59_890, 3_983)
    assert sum(length > 100 for length in words["train"]) == 277
    streams = encode(corpus.config, corpus).streams
    assert len(WindowIndex(streams["train"], 100)) == 30_301
    assert (len(streams["train"]), len(streams["test"])) == (59_890, 3_983)


def test_lee_news_is_read_without_importing_gensim(tmp_path):
    code = (
        "import sys\n"
        "from unroll.app import compose\n"
        "from unroll.registry import build\n"
        f"data = compose(['data=lee_news', 'data.cache={tmp_path}']).data\n"
        "assert len(build('data', data).read()['test']) == 50\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'gensim'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Held-out documents


def numbered(folder: Path, count: int) -> Path:
    return written(folder, "numbered.txt", "".join(f"document {n}\n" for n in range(count)))


def numbers(texts: list[str]) -> list[int]:
    return [int(text.split()[1]) for text in texts]


def test_held_out_documents_are_disjoint_and_all_splits_keep_their_order(text_files, tmp_path):
    corpus = text_files(numbered(tmp_path, 100), valid_fraction=0.1, test_fraction=0.2)
    found = {split: numbers(texts) for split, texts in documents(corpus).items()}
    assert sorted(chain.from_iterable(found.values())) == list(range(100))
    assert all(held == sorted(held) for held in found.values())
    assert len(found["test"]) == 20


def test_each_held_out_share_is_a_share_of_all_the_training_documents(text_files, tmp_path):
    corpus = text_files(numbered(tmp_path, 100), valid_fraction=0.4, test_fraction=0.5)
    assert {split: len(texts) for split, texts in documents(corpus).items()} == {
        "train": 10,
        "valid": 40,
        "test": 50,
    }


def test_held_out_documents_are_chosen_by_the_seed_alone(text_files, tmp_path):
    path = numbered(tmp_path, 60)
    shares = {"valid_fraction": 0.2, "test_fraction": 0.2}
    first = documents(text_files(path, **shares, cache=str(tmp_path / "a")))
    again = documents(text_files(path, **shares, cache=str(tmp_path / "b")))
    other = documents(text_files(path, **shares, split_seed=1))
    assert first == again
    assert first["test"] != other["test"]
    assert first["valid"] != other["valid"]
    assert numbers(first["test"]) != list(range(12)), "not simply the first ones"


def test_a_share_of_nothing_holds_out_no_split(text_files, tmp_path):
    assert set(documents(text_files(numbered(tmp_path, 5)))) == {"train"}


def test_a_small_share_still_holds_out_one_document(text_files, tmp_path):
    found = documents(text_files(numbered(tmp_path, 5), valid_fraction=0.01))
    assert (len(found["train"]), len(found["valid"])) == (4, 1)


def test_splits_that_the_corpus_has_are_not_held_out(text_files, tmp_path):
    train = numbered(tmp_path, 10)
    valid = written(tmp_path, "v.txt", "valid\n")
    test = written(tmp_path, "t.txt", "test one\ntest two\n")
    corpus = text_files(
        train,
        valid_path=str(valid),
        test_path=str(test),
        valid_fraction=0.5,
        test_fraction=0.4,
    )
    found = documents(corpus)
    assert numbers(found["train"]) == list(range(10))
    assert (found["valid"], found["test"]) == (["valid"], ["test one", "test two"])


def test_a_single_document_cannot_be_held_out(text_files, tmp_path):
    path = written(tmp_path, "one.txt", "only this\n")
    with pytest.raises(Refused, match=r"one\.txt: 1 document.*data\.test_fraction=0"):
        text_files(path, test_fraction=0.1).read()


def test_limit_takes_the_first_documents_of_every_split_the_corpus_has(text_files, tmp_path):
    test = written(tmp_path, "t.txt", "a\nb\nc\n")
    found = documents(text_files(numbered(tmp_path, 9), test_path=str(test), limit=2))
    assert numbers(found["train"]) == [0, 1]
    assert found["test"] == ["a", "b"]


def test_a_limit_beyond_the_corpus_takes_all_of_it(text_files, tmp_path):
    assert len(documents(text_files(numbered(tmp_path, 3), limit=1000))["train"]) == 3


# Text files


def test_a_folder_gives_its_files_sorted_and_no_hidden_one(text_files, tmp_path):
    folder = tmp_path / "folder"
    written(folder, "b.txt", "from b\n")
    written(folder, "a.txt.gz", gzip.compress(b"from a\n"))
    written(folder, "c/d.txt", "from d\n")
    written(folder, ".hidden", "hidden\n")
    assert documents(text_files(folder))["train"] == ["from a", "from b", "from d"]


def test_a_glob_gives_the_files_that_it_matches(text_files, tmp_path):
    for name in ("one.txt", "two.txt", "three.md", "deep/four.txt"):
        written(tmp_path / "g", name, f"{name}\n")
    assert documents(text_files(tmp_path / "g/*.txt"))["train"] == ["one.txt", "two.txt"]
    deep = documents(text_files(tmp_path / "g/**/*.txt"))["train"]
    assert sorted(deep) == ["deep/four.txt", "one.txt", "two.txt"]


def test_a_name_with_signs_of_a_glob_is_taken_as_it_is_where_it_exists(text_files, tmp_path):
    path = written(tmp_path, "what[1]?.txt", "a line\n")
    assert documents(text_files(path))["train"] == ["a line"]


def test_the_working_folder_may_be_the_corpus(text_files, tmp_path, monkeypatch):
    written(tmp_path / "here", "a.txt", "a line\n")
    monkeypatch.chdir(tmp_path / "here")
    assert documents(text_files("."))["train"] == ["a line"]


def test_changed_content_under_the_same_name_is_read_again(text_files, tmp_path):
    path = written(tmp_path, "a.txt", "before\n")
    assert documents(text_files(path))["train"] == ["before"]
    written(tmp_path, "a.txt", "after!\n")
    assert documents(text_files(path))["train"] == ["after!"]


@pytest.mark.parametrize("key", ["path", "valid_path", "test_path"])
def test_a_path_that_is_not_there_is_refused_under_its_key(text_files, tmp_path, key):
    paths = {"path": written(tmp_path, "a.txt", "a line\n")} | {key: str(tmp_path / "nowhere.txt")}
    with pytest.raises(Refused, match=rf"data\.{key}=.*nowhere\.txt does not exist"):
        text_files(**paths).read()


def test_a_glob_without_a_match_an_empty_folder_and_an_empty_path_are_refused(text_files, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match=r"data\.path=.*\*\.txt matches no file"):
        text_files(tmp_path / "*.txt").read()
    with pytest.raises(Refused, match=r"data\.path=.*empty contains no file"):
        text_files(tmp_path / "empty").read()
    with pytest.raises(Refused, match=r"data\.path= is empty"):
        text_files("").read()


# Encodings


@pytest.mark.parametrize("before", [0, 5, BLOCK - 1, BLOCK, BLOCK + 7, 3 * BLOCK + 1])
def test_a_byte_that_is_not_utf8_is_named_with_its_file_and_offset(text_files, tmp_path, before):
    line = b"x" * 4095 + b"\n"
    path = written(tmp_path, "bad.txt", (line * (before // 4096 + 1))[:before] + b"\xffabc\n")
    with pytest.raises(Refused) as refused:
        text_files(path).read()
    line = str(refused.value)
    assert f"{path}: the byte at offset {before} is not valid utf-8" in line
    assert "data.encoding" in line
    assert "\n" not in line


def test_a_bad_byte_inside_a_gz_is_named_with_its_offset_in_the_text(text_files, tmp_path):
    path = written(tmp_path, "bad.txt.gz", gzip.compress(b"abc\n" * 10 + b"\xff\n"))
    with pytest.raises(Refused, match=r"bad\.txt\.gz: the byte at offset 40 is not valid utf-8"):
        text_files(path).read()


def test_a_bad_byte_inside_a_zip_is_named_with_its_member(text_files, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("good.txt", b"good\n")
        archive.writestr("bad.txt", b"abc\n\xff\n")
    path = written(tmp_path, "a.zip", buffer.getvalue())
    with pytest.raises(Refused, match=r"a\.zip:bad\.txt: the byte at offset 4 is not valid utf-8"):
        text_files(path).read()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8"])
def test_text_is_decoded_as_the_encoding_says(text_files, tmp_path, encoding):
    path = written(tmp_path, "a.txt", "caf\u00e9\nna\u00efve\n".encode(encoding))
    assert documents(text_files(path, encoding=encoding))["train"] == ["caf\u00e9", "na\u00efve"]


@pytest.mark.parametrize("encoding", ["utf-9", "", "hex", "rot13"])
def test_what_is_no_encoding_of_text_is_refused(text_files, tmp_path, encoding):
    path = written(tmp_path, "a.txt", "a line\n")
    with pytest.raises(Refused, match=f"data.encoding={encoding}"):
        text_files(path, encoding=encoding).read()


def test_text_that_is_not_of_a_stateful_encoding_is_refused(text_files, tmp_path):
    path = written(tmp_path, "a.txt", b"no byte order mark\n")
    with pytest.raises(Refused, match=r"a\.txt.*utf-16"):
        text_files(path, encoding="utf-16").read()


# Penn Treebank


@pytest.fixture
def penn_treebank(composed, tmp_path):
    base = composed("data=penn_treebank", "data.path=x").data
    base = replace(base, cache=str(tmp_path / "cache"))
    return lambda path, **changes: build("data", replace(base, path=str(path), **changes))


def test_every_line_of_penn_treebank_is_a_sentence_that_ends_with_eos(penn_treebank, tmp_path):
    written(tmp_path, "ptb.train.txt", " aer <unk> N \n no it was n't \n")
    written(tmp_path, "ptb.valid.txt", " no \n")
    written(tmp_path, "ptb.test.txt", " it was \n zebra \n")
    corpus = penn_treebank(tmp_path)
    encoded = encode(corpus.config, corpus)
    sentences = {
        split: [
            " ".join(encoded.vocabulary.decode(stream.document(n))) for n in range(stream.documents)
        ]
        for split, stream in encoded.streams.items()
    }
    assert sentences == {
        "train": ["aer <unk> n <eos>", "no it was n't <eos>"],
        "valid": ["no <eos>"],
        "test": ["it was <eos>", "<unk> <eos>"],
    }


def test_penn_treebank_names_the_file_that_is_missing(penn_treebank, tmp_path):
    train = written(tmp_path, "ptb.train.txt", "a\n")
    with pytest.raises(Refused, match=r"data\.path=.* has no ptb\.valid\.txt"):
        penn_treebank(tmp_path).read()
    with pytest.raises(Refused, match="is a file: give the folder"):
        penn_treebank(train).read()


def test_the_penn_treebank_at_hand_has_its_known_words(penn_treebank, shared):
    corpus = penn_treebank(shared("ptb"))
    encoded = encode(corpus.config, corpus)
    assert {split: len(stream) for split, stream in encoded.streams.items()} == {
        "train": 929_589,
        "valid": 73_760,
        "test": 82_430,
    }
    assert len(set(encoded.streams["train"].tokens.tolist())) == 10_000


# Fingerprints


def test_a_fingerprint_stays_when_the_files_move(text_files, tmp_path):
    path = numbered(tmp_path / "before", 5)
    before = text_files(path).fingerprint()
    (tmp_path / "after").mkdir()
    path.rename(tmp_path / "after" / path.name)
    assert text_files(tmp_path / "after" / path.name).fingerprint() == before


def test_a_fingerprint_changes_with_a_single_byte(text_files, tmp_path):
    path = numbered(tmp_path, 5)
    before = text_files(path).fingerprint()
    path.write_bytes(path.read_bytes().replace(b"3", b"4"))
    assert text_files(path).fingerprint() != before


def test_a_fingerprint_changes_with_what_decides_the_documents(text_files, tmp_path):
    path, other = numbered(tmp_path, 5), written(tmp_path, "other.txt", "b\n")
    changes = [
        {},
        {"document": "file"},
        {"encoding": "latin-1"},
        {"text_column": "body"},
        {"limit": 2},
        {"split_seed": 1},
        {"valid_fraction": 0.1},
        {"test_fraction": 0.1},
        {"valid_path": str(other)},
        {"test_path": str(other)},
    ]
    found = {text_files(path, **change).fingerprint() for change in changes}
    assert len(found) == len(changes)


def test_a_fingerprint_does_not_change_with_what_comes_after_the_documents(text_files, tmp_path):
    path = numbered(tmp_path, 5)
    corpus = text_files(path, append_eos=True, cache=str(tmp_path / "elsewhere"))
    assert corpus.fingerprint() == text_files(path).fingerprint()


def test_files_are_hashed_once_for_fingerprints_and_for_the_table(
    text_files, tmp_path, monkeypatch
):
    monkeypatch.setattr(text_reader, "SETTLED_SECONDS", 0)
    path, hashed, digest = numbered(tmp_path, 5), [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, *by: hashed.append(file.name) or digest(file, *by)
    )
    assert text_files(path).fingerprint() == text_files(path).fingerprint()
    documents(text_files(path))
    assert hashed == [str(path)]


def test_a_fingerprint_asks_for_the_files_that_it_hashes(text_files, tmp_path):
    with pytest.raises(Refused, match="does not exist"):
        text_files(tmp_path / "nowhere").fingerprint()
