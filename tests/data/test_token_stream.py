"""A corpus as ids: what is written, what is cached, what is read again."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.data import shards, token_stream
from unroll.data.config import VocabularyConfig
from unroll.data.token_stream import TokenStream, encode
from unroll.data.vocabulary import END, SPECIALS, Vocabulary
from unroll.errors import Refused
from unroll.registry import build

LINES = {
    "train": ["The cat sat on the mat", "a DOG \U0001f600", "the end of the cat <eos> <unk>", "x"],
    "test": ["the zebra sat", "\u5206\u5f00 cat"],
}


@pytest.fixture
def corpus(composed, tmp_path):
    """A corpus of two splits, each line a document."""
    for split, lines in LINES.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    base = composed("data=text_files", "data.path=x", "data.document=line").data

    def corpus_(**changes):
        values = {
            "path": str(tmp_path / "train.txt"),
            "test_path": str(tmp_path / "test.txt"),
            "cache": str(tmp_path / "cache"),
            "valid_fraction": 0.0,
        }
        return build("data", replace(base, **(values | changes)))

    return corpus_


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "streams").iterdir() if path.suffix != ".lock")


def equal(found: TokenStream, expected: TokenStream) -> bool:
    return (
        found.tokens.tolist() == expected.tokens.tolist()
        and found.offsets.tolist() == expected.offsets.tolist()
        and found.characters == expected.characters
    )


@pytest.mark.parametrize("append_eos", [False, True])
def test_a_stream_holds_the_ids_that_plain_python_gives(corpus, append_eos):
    made = corpus(append_eos=append_eos)
    encoded = encode(made.config, made)
    words = {split: [line.lower().split() for line in LINES[split]] for split in LINES}
    counts = Counter(word for document in words["train"] for word in document)
    ranked = [word for word, _ in counts.most_common() if word not in SPECIALS]
    ids = {word: n for n, word in enumerate([*SPECIALS, *ranked])}
    assert encoded.vocabulary.tokens == list(ids)
    for split, documents in words.items():
        stream = encoded.streams[split]
        expected = [
            [ids.get(word, 0) for word in document] + [3] * append_eos for document in documents
        ]
        assert [stream.document(n).tolist() for n in range(stream.documents)] == expected
        assert stream.tokens.tolist() == [word for document in expected for word in document]
        assert stream.lengths.tolist() == [len(document) for document in expected]
        assert stream.offsets[0] == 0
        assert len(stream) == stream.offsets[-1]
        assert stream.characters == sum(map(len, LINES[split]))
        assert (stream.tokens.dtype, stream.offsets.dtype) == (np.int32, np.int64)
        assert isinstance(stream.tokens, np.memmap)


def test_ids_of_the_training_split_are_counted_in_parts(corpus, monkeypatch):
    encoded = encode(corpus().config, corpus())
    monkeypatch.setattr(token_stream, "COUNTED_AT_ONCE", 3)
    counts = Counter(encoded.streams["train"].tokens.tolist())
    assert encoded.counts() == [counts[word] for word in range(len(encoded.vocabulary))]


class Written:
    """A corpus whose documents are given."""

    def __init__(self, tables: dict[str, list[str]]) -> None:
        from datasets import Dataset

        self.tables = {name: Dataset.from_dict({"text": texts}) for name, texts in tables.items()}

    def fingerprint(self) -> str:
        return "written"

    def read(self):
        return self.tables

    def where(self, split: str) -> str:
        return split


def plain(config, tables: dict[str, list[str]]):
    """Tokenizer, vocabulary, and ids and ends of each split, one document after another: the
    training split is read twice."""
    tokenizer = build("data/tokenizer", config.tokenizer)
    tokenizer.train(tables["train"])
    counts: Counter[str] = Counter()
    for text in tables["train"]:
        counts.update(tokenizer.tokenize(text))
    vocabulary = Vocabulary.from_counts(counts, config.vocabulary, tokenizer.inventory)
    streams = {}
    for split, texts in tables.items():
        ids, ends = [], [0]
        for text in texts:
            tokens = tokenizer.tokenize(text) + [END] * config.append_eos
            ids += vocabulary.encode(tokens).tolist()
            ends.append(len(ids))
        streams[split] = ids, ends, sum(map(len, texts))
    return tokenizer, vocabulary, streams


WORDS = st.text(alphabet="abA\u03a3 \n\u2028\u0130<>1,", max_size=12) | st.sampled_from(
    ["<eos> <unk>", "the cat  sat", "\u5206\u5f00 \U0001f600", "a \u03a3\u03a3 b\u03a3", ""]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=12)


@pytest.mark.parametrize("tokenizer", ["word", "character", "subword"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_encoding_in_blocks_and_shards_equals_encoding_one_document_after_another(
    composed, tokenizer, data
):
    tables = {split: data.draw(TEXTS) for split in LINES}
    frequent = data.draw(st.sampled_from([VocabularyConfig(1, None), VocabularyConfig(2, 8)]))
    with tempfile.TemporaryDirectory() as cache, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CHARACTERS_AT_ONCE", data.draw(st.integers(1, 80)))
        patch.setattr(shards, "IDS_AT_ONCE", data.draw(st.integers(1, 50)))
        config = replace(
            composed(f"data/tokenizer={tokenizer}").data,
            vocabulary=frequent,
            append_eos=data.draw(st.booleans()),
            cache=cache,
            shards=data.draw(st.integers(1, 5)),
        )
        patch.setattr("joblib.cpu_count", lambda: 1)  # processes are tested below
        learned, vocabulary, streams = plain(config, tables)
        if any(ends[-1] == 0 for _, ends, _ in streams.values()) or not any(
            learned.tokenize(text) for text in tables["train"]
        ):
            with pytest.raises(Refused, match="contains no token"):
                encode(config, Written(tables))
            return
        found = encode(config, Written(tables))
        assert found.vocabulary.tokens == vocabulary.tokens
        assert found.tokenizer.to_json() == learned.to_json()
        assert list(found.streams) == list(tables)
        for split, (ids, ends, characters) in streams.items():
            stream = found.streams[split]
            assert (np.asarray(stream.tokens).tolist(), stream.offsets.tolist()) == (ids, ends)
            assert stream.characters == characters
        files = {path.name for path in (Path(cache) / "streams" / found.fingerprint).iterdir()}
        assert files == {"vocabulary.json", "tokenizer.json", "meta.json", "digests.json"} | {
            f"{split}.offsets" for split in tables
        } | {
            f"{split}-{shard}.tokens"
            for split, documents in tables.items()
            for shard in range(min(config.shards, len(documents)))
        }


def test_nothing_is_learned_from_documents_that_are_held_out(corpus):
    made = corpus()
    vocabulary = encode(made.config, made).vocabulary
    assert "cat" in vocabulary
    assert "zebra" not in vocabulary


@pytest.mark.parametrize("tokenizer", ["word", "character", "subword"])
def test_what_is_read_from_the_cache_equals_what_was_written(corpus, composed, tokenizer):
    config = composed(f"data/tokenizer={tokenizer}").data.tokenizer
    made = corpus(tokenizer=config)
    first, second = encode(made.config, made), encode(made.config, made)
    assert second.fingerprint == first.fingerprint
    assert second.vocabulary.tokens == first.vocabulary.tokens
    assert second.tokenizer.tokenize(LINES["test"][1]) == first.tokenizer.tokenize(LINES["test"][1])
    assert all(equal(second.streams[split], first.streams[split]) for split in LINES)
    assert len(entries(Path(made.config.cache))) == 1


# Two processes


ENCODE = """
import sys
from pathlib import Path
{before}
from dataclasses import replace
from unroll.app import compose
from unroll.data.config import VocabularyConfig
from unroll.data.token_stream import encode
from unroll.registry import build
folder = {folder!r}
data = compose(["tracking=disabled", "data=text_files", "data.document=line",
                "data.path=" + folder + "/train.txt", "data.test_path=" + folder + "/test.txt",
                "data.cache=" + folder + "/cache", "data.valid_fraction=0"]).data
data = replace(data, vocabulary=VocabularyConfig({min_frequency}, None))
found = encode(data, build("data", data))
print(found.fingerprint, len(found.vocabulary), found.streams["train"].tokens.tolist())
"""
BLOCKED = """
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("datasets", "pyarrow", "mlflow", "gensim"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
"""


def process(folder: Path, before: str = "", min_frequency: int = 1) -> subprocess.Popen[str]:
    code = ENCODE.format(folder=str(folder), before=before, min_frequency=min_frequency)
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(running: subprocess.Popen[str]) -> str:
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    return out


def test_a_cached_stream_is_read_where_there_is_no_datasets(corpus, tmp_path):
    made = corpus()
    encoded = encode(made.config, made)
    tokens = encoded.streams["train"].tokens.tolist()
    expected = f"{encoded.fingerprint} {len(encoded.vocabulary)} {tokens}\n"
    assert output(process(tmp_path, BLOCKED)) == expected


def test_two_processes_at_once_on_one_cache_both_get_the_same(corpus, tmp_path):
    for n in range(400):  # long enough that the two overlap
        with (tmp_path / "train.txt").open("a", encoding="utf-8") as file:
            file.writelines(f"line {n} {m} {n * m}\n" for m in range(20))
    both = [process(tmp_path), process(tmp_path)]
    first, second = [output(running) for running in both]
    assert first == second
    assert entries(tmp_path / "cache") == [first.split()[0]]


def test_two_settings_at_once_on_one_cache_do_not_disturb_each_other(corpus, tmp_path):
    both = [process(tmp_path, min_frequency=1), process(tmp_path, min_frequency=2)]
    together = [output(running) for running in both]
    made = corpus()
    alone = [
        encode(replace(made.config, vocabulary=VocabularyConfig(frequency, None)), made)
        for frequency in (1, 2)
    ]
    assert [line.split()[0] for line in together] == [encoded.fingerprint for encoded in alone]
    assert [int(line.split()[1]) for line in together] == [len(e.vocabulary) for e in alone]


# Entries of the cache


def test_another_setting_gets_another_entry(corpus, composed, tmp_path):
    character = composed("data/tokenizer=character").data.tokenizer
    changes = [
        {},
        {"append_eos": True},
        {"vocabulary": VocabularyConfig(2, None)},
        {"vocabulary": VocabularyConfig(1, 6)},
        {"tokenizer": character},
        {"tokenizer": replace(character, lower=True)},
        {"limit": 2},
        {"valid_fraction": 0.3},
        {"valid_fraction": 0.3, "split_seed": 5},
        {"document": "file"},
    ]
    made = [corpus(**change) for change in changes]
    found = {encode(one.config, one).fingerprint for one in made}
    assert len(found) == len(changes)
    assert entries(tmp_path / "cache") == sorted(found)


def test_a_setting_that_does_not_change_the_ids_shares_the_entry(corpus, composed, tmp_path):
    made = [corpus(), corpus(batching=composed("data/batching=windows").data.batching)]
    assert len({encode(one.config, one).fingerprint for one in made}) == 1
    assert len(entries(tmp_path / "cache")) == 1


def test_changed_text_gets_another_entry(corpus, tmp_path):
    made = corpus()
    before = encode(made.config, made)
    (tmp_path / "train.txt").write_text("another text\n", encoding="utf-8")
    after = encode(made.config, made)
    assert after.fingerprint != before.fingerprint
    assert len(after.streams["train"]) == 2


class Breaking:
    """A tokenizer that fails in the middle of a split."""

    def __init__(self) -> None:
        self.left = 2

    def tokenize(self, text: str) -> list[str]:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("in the middle")
        return text.split()

    def tokenize_all(self, texts: list[str]) -> list[list[str]]:
        return list(map(self.tokenize, texts))

    def to_json(self) -> str:
        return "{}"


def test_a_failure_in_the_middle_leaves_no_entry_behind(corpus, tmp_path):
    made = corpus()
    vocabulary = Vocabulary([*SPECIALS, "cat"])
    with pytest.raises(RuntimeError, match="in the middle"):
        encode(made.config, made, Breaking(), vocabulary)
    assert entries(tmp_path / "cache") == []
    whole = Breaking()
    whole.left = 100
    encoded = encode(made.config, made, whole, vocabulary)
    assert encoded.streams["train"].tokens.tolist().count(4) == 2
    assert entries(tmp_path / "cache") == [encoded.fingerprint]


def test_a_tokenizer_and_vocabulary_that_are_given_are_used_as_they_are(corpus):
    made = corpus()
    learned = encode(made.config, made)
    given = Vocabulary([*SPECIALS, "zebra", "cat"])
    encoded = encode(made.config, made, learned.tokenizer, given)
    assert encoded.vocabulary.tokens == given.tokens
    assert encoded.streams["test"].tokens.tolist() == [0, 4, 0, 0, 5]
    assert encoded.fingerprint != learned.fingerprint


# Reading


@pytest.fixture
def mapped(tmp_path) -> TokenStream:
    np.arange(50, dtype=np.int32).tofile(tmp_path / "ids")
    tokens = np.memmap(tmp_path / "ids", dtype=np.int32, mode="r")
    return TokenStream(tokens, np.array([0, 3, 3, 50]), 7)


@pytest.mark.parametrize("release_after", [1, 1 << 23])
def test_rows_are_the_ids_from_each_start_on(mapped, monkeypatch, release_after):
    monkeypatch.setattr(token_stream, "RELEASE_AFTER", release_after)
    for _ in range(3):  # also after pages were handed back
        rows = mapped.rows(np.array([0, 44, 7, 7]), 6)
        assert rows.tolist() == [list(range(start, start + 6)) for start in (0, 44, 7, 7)]
        assert rows.dtype == np.int64


def test_a_document_is_read_whole_or_only_its_beginning(mapped):
    assert mapped.documents == 3
    assert mapped.lengths.tolist() == [3, 0, 47]
    assert mapped.document(0).tolist() == [0, 1, 2]
    assert mapped.document(1).tolist() == []
    assert mapped.document(2, 2).tolist() == [3, 4]
    assert mapped.document(0, 99).tolist() == [0, 1, 2]


@pytest.mark.parametrize("documents", [[], [[]], [[1], [], [2, 3]]])
def test_a_stream_made_of_documents_gives_them_back(documents):
    stream = TokenStream.from_documents([np.array(one, np.int32) for one in documents], 9)
    assert [stream.document(n).tolist() for n in range(stream.documents)] == documents
    assert len(stream) == sum(map(len, documents))
    assert stream.characters == 9
