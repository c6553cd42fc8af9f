"""Cross-scoring of trained runs, against scores made by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unroll.app import compose, dispatch
from unroll.data.passage import Passage
from unroll.data.token_stream import TokenStream, encode
from unroll.data.vocabulary import SPECIALS
from unroll.errors import Refused
from unroll.evaluation.perplexity import score
from unroll.generation.sampler import continuations
from unroll.registry import build
from unroll.tasks.compare import (
    PEOPLE,
    Text,
    Written,
    measured,
    openings,
    read,
    real_texts,
    write,
)
from unroll.tasks.trained import Trained, load_run

TINY = ("model.hidden_size=8", "model.embedding_size=8", "data.limit=20", "training.max_steps=2")
TINY += ("data=lee_news", "data.batching.batch_size=4", "training.epochs=50", "sampling.length=3")
TASK = ("task=compare", "task.temperatures=[1.0]", "sampling.length=6", "sampling.prefix_length=3")
TASK += ("sampling.prefix_documents=2", "sampling.samples=2")
RUNS = (("model=lstm", "optimizer.learning_rate=0.1"), ("model=rnn", "data/tokenizer=character"))


class Home:
    """Two trained runs, the second over characters, and what was made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = ["tracking=disabled", f"tracking.directory={folder}/mlruns"]
        self.places += [f"data.cache={folder}/cache", "device=cpu"]
        self.ids = [
            self.do(f"train{number}", *TINY, *words)["run_id"] for number, words in enumerate(RUNS)
        ]
        self.result = self.compare("compared")
        self.config = compose(self.places)
        self.runs = [load_run(run_id, self.config, []) for run_id in self.ids]

    def do(self, name: str, *words: str) -> dict[str, Any]:
        (self.folder / name).mkdir()
        config = compose([*self.places, *words])
        return dispatch(config, self.folder / name, list(words), reuse=False)

    def compare(self, name: str, *words: str) -> dict[str, Any]:
        return self.do(name, *TASK, f"task.runs=[{','.join(self.ids)}]", *words)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


def log_probabilities(reader: Trained, prefix: str, text: str) -> list[float]:
    """log p of each token of a text after its prefix, token by token."""
    given, added = (reader.tokenizer.tokenize(part) for part in (prefix, text))
    known = len(given)
    ids = reader.vocabulary.encode([*given, *added]).tolist()
    found, state = [], reader.model.eval().initial_state(1)
    with torch.inference_mode():
        for position, word in enumerate(ids[:-1], start=1):
            hidden, state = reader.model(torch.tensor([[word]]), state)
            if position >= known:
                table = reader.model.softmax.log_probabilities(hidden[0, 0])
                found.append(float(table[ids[position]]))
    return found


def text(prefix: str, continuation: str) -> Text:
    """A text without specials."""
    return Text(Passage(prefix), Passage(continuation))


def test_every_run_reads_every_text_those_of_people_and_the_test_split(home: Home) -> None:
    places = [(item["reader"], item["writer"], item["mode"]) for item in home.result["scores"]]
    modes = [(writer, mode) for writer in home.ids for mode in ("greedy", "1.0")]
    texts = [("test", None), ("people", None), *modes]
    assert sorted(map(str, places)) == sorted(
        str((run, *text)) for run in home.ids for text in texts
    )
    assert [(run["run_id"], run["model"]) for run in home.result["runs"]] == [
        (home.ids[0], "lstm"),
        (home.ids[1], "rnn"),
    ]
    assert home.result["runs"][0]["parameters"] == home.runs[0].model.parameter_count


@pytest.mark.parametrize("number", [0, 1])
def test_a_score_is_that_of_the_continuations_given_their_prefixes(home: Home, number) -> None:
    reader = home.runs[number]
    written = {(item["writer"], item["mode"]): item["samples"] for item in home.result["texts"]}
    for item in home.result["scores"]:
        if item["reader"] != reader.run_id or item["writer"] == "test":
            continue
        samples = written[item["writer"], item["mode"]]
        logs = [
            value
            for sample in samples
            for value in log_probabilities(reader, sample["prefix"], sample["text"])
        ]
        characters = sum(len(sample["text"]) for sample in samples)
        assert item["tokens"] == len(logs)
        assert item["nats_per_token"] == pytest.approx(-np.mean(logs), rel=1e-4)
        assert item["perplexity"] == pytest.approx(math.exp(-np.mean(logs)), rel=1e-3)
        bits = -sum(logs) / math.log(2) / characters
        assert item["bits_per_character"] == pytest.approx(bits, rel=1e-4)


def test_the_test_split_is_scored_as_the_evaluation_scores_it(home: Home) -> None:
    config = home.config
    for number, run_id in enumerate(home.ids):
        reader = home.runs[number]
        encoded = reader.read(home.runs[0].data, config.data.cache)
        by_hand = score(reader.model, encoded.streams["test"], config.evaluation, 0)
        (found,) = [
            item
            for item in home.result["scores"]
            if (item["reader"], item["writer"]) == (run_id, "test")
        ]
        assert found["perplexity"] == pytest.approx(by_hand.perplexity, rel=1e-6)
        assert found["tokens"] == by_hand.tokens


def test_greedy_texts_are_the_least_surprising_to_their_writer(home: Home) -> None:
    for run_id in home.ids:
        own = {
            item["mode"]: item["perplexity"]
            for item in home.result["scores"]
            if item["reader"] == item["writer"] == run_id
        }
        assert own["greedy"] < own["1.0"]


def test_people_write_as_much_as_the_runs_and_go_on_from_the_same_prefixes(home: Home) -> None:
    texts = {(item["writer"], item["mode"]): item for item in home.result["texts"]}
    people, greedy = texts["people", None], texts[home.ids[0], "greedy"]
    assert people["tokens"] == greedy["tokens"] == 2 * 2 * 6
    prefixes = [sample["prefix"] for sample in people["samples"]]
    assert [sample["prefix"] for sample in greedy["samples"]] == [
        prefix for prefix in prefixes[:2] for _ in range(2)
    ]
    documents = list(build("data", home.runs[0].data).read()["test"]["text"])
    for sample, document in zip(people["samples"], documents, strict=False):
        whole = " ".join(document.lower().split()[:9])
        assert sample["prefix"] + sample["text"] == whole
    assert "<unk>" not in whole
    assert home.runs[0].vocabulary.unknown in home.runs[0].vocabulary.encode(
        " ".join(sample["prefix"] + sample["text"] for sample in people["samples"]).split()
    )


def test_greedy_says_the_same_thing_twice_and_distinct_n_shows_it(home: Home) -> None:
    (greedy,) = [
        item
        for item in home.result["texts"]
        if (item["writer"], item["mode"]) == (home.ids[0], "greedy")
    ]
    assert greedy["distinct_3"] <= 0.5


@pytest.mark.parametrize("protocol", ["document", "window", "handout"])
def test_texts_are_documents_of_their_own_whatever_the_protocol(home: Home, protocol) -> None:
    reader = home.runs[0]
    base = home.config.evaluation
    texts = [text("the police said", " on friday that"), text("a", " fire in the north")]
    texts += [text("the fire", "")]
    scores = [read(reader, texts, replace(base, protocol=name)) for name in ("stream", protocol)]
    assert scores[0].nats == pytest.approx(scores[1].nats, rel=1e-5)
    assert scores[0].tokens == scores[1].tokens == 3 + 4
    assert scores[0].characters == len(" on friday that") + len(" fire in the north")


@pytest.mark.parametrize("number", [0, 1])
def test_the_specials_of_a_text_are_those_that_its_writer_drew(home: Home, number) -> None:
    writer = home.runs[number]
    config = replace(home.config.sampling, allow_special=True, length=40, samples=8, greedy=False)
    config = replace(config, top_k=None)
    bias = writer.model.softmax.linear.bias
    before = bias.detach().clone()
    with torch.no_grad():
        bias[: len(SPECIALS)] += 4
    prefix = Passage("the <unk> fire")
    ids = torch.from_numpy(prefix.ids(writer.tokenizer, writer.vocabulary)).long()
    drawn = continuations(writer.model, writer.vocabulary, [ids], config, 35)[0]
    texts = write(writer, [prefix], config)
    with torch.no_grad():
        bias.copy_(before)
    assert len({token for row in drawn for token in row} & set(range(4))) == 4
    for row, found in zip(drawn, texts, strict=True):
        assert found.prefix == prefix
        names = [name for _, name in found.continuation.specials]
        assert names == [SPECIALS[token] for token in row if token < len(SPECIALS)]
        read_again = found.continuation.ids(writer.tokenizer, writer.vocabulary)
        assert read_again.tolist() == row


@pytest.mark.parametrize("tokenizer", ["word", "character", "subword"])
def test_the_ends_of_documents_are_specials_and_what_people_wrote_is_text(
    composed, tmp_path: Path, tokenizer
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("he wrote <eos> and <unk> twice\n" * 9)
    data = composed(
        "data=text_files",
        f"data.path={path}",
        f"data.test_path={path}",
        "data.document=line",
        "data.append_eos=true",
        "data.valid_fraction=0",
        f"data.cache={tmp_path}/cache",
        f"data/tokenizer={tokenizer}",
    ).data
    corpus = encode(data, build("data", data))
    stream = corpus.streams["test"]
    length = int(stream.lengths[0]) + 3
    sampling = replace(composed().sampling, prefix_length=2, length=length - 2, samples=1)
    for number, found in enumerate(real_texts(data, corpus, sampling)):
        for part in (found.prefix, found.continuation):
            for place, name in part.specials:
                assert part.text[place : place + len(name)] == name == "<eos>"
        assert (len(found.prefix.specials), len(found.continuation.specials)) == (0, 1)
        ids = [
            position
            for part in (found.prefix, found.continuation)
            for position in part.ids(corpus.tokenizer, corpus.vocabulary).tolist()
        ]
        start = int(stream.offsets[2 * number])
        assert ids == stream.tokens[start : start + length].tolist()


# Diversity


def test_the_same_text_has_the_same_diversity_whoever_wrote_it(home: Home) -> None:
    """Words that the vocabulary does not know are one and the same, for people too."""
    first = home.runs[0]
    real = [text("the fire", " zebra yak said the gnu said")]
    drawn = [Text(Passage("the fire"), Passage(" <unk> <unk> said the <unk> said", DRAWN))]
    people, run = (
        measured(Written(writer, None, texts), first)
        for writer, texts in ((PEOPLE, real), (first.run_id, drawn))
    )
    for key in ("distinct_1", "distinct_2", "distinct_3", "tokens"):
        assert people[key] == run[key], key
    assert people["distinct_1"] == 3 / 6
    assert people["distinct_2"] == 4 / 5


DRAWN = ((1, "<unk>"), (7, "<unk>"), (22, "<unk>"))


def test_diversity_counts_ids_of_the_first_runs_vocabulary(home: Home) -> None:
    first = home.runs[0]
    for item in home.result["texts"]:
        ids = [
            first.vocabulary.encode(first.tokenizer.tokenize(sample["text"])).tolist()
            for sample in item["samples"]
        ]
        words = [word for row in ids for word in row]
        assert item["tokens"] == len(words)
        assert item["distinct_1"] == pytest.approx(len(set(words)) / len(words))
        pairs = [pair for row in ids for pair in pairwise(row)]
        assert math.isnan(item["distinct_2"]) == (not pairs)
        if pairs:
            assert item["distinct_2"] == pytest.approx(len(set(pairs)) / len(pairs))


def test_no_run_writes_a_special_that_people_could_not_write(home: Home) -> None:
    for item in home.result["texts"]:
        for sample in item["samples"]:
            assert not {"<unk>", "<pad>", "<bos>"} & set(sample["text"].split())


def test_texts_start_with_documents_and_run_on_where_those_are_short() -> None:
    lengths = [3, 5, 2, 2, 6, 1]
    stream = TokenStream.from_documents([np.zeros(length, np.int32) for length in lengths])
    assert openings(stream, 5, 2) == [3, 12]
    assert openings(stream, 4, 2) == [3, 12]
    assert openings(stream, 7, 2) == [0, 8]  # none is as long
    assert openings(stream, 7, 3) == [0, 8]
    assert openings(stream, 20, 1) == []


def test_a_perplexity_past_all_bounds_is_null_in_the_result(home: Home, monkeypatch) -> None:
    from unroll.models.softmax import FullSoftmax

    monkeypatch.setattr(FullSoftmax, "score", lambda self, hidden, targets: (math.inf, 0))
    home.compare("infinite")
    kept = json.loads((home.folder / "infinite" / "result.json").read_text(encoding="utf-8"))
    assert all(item["perplexity"] is None for item in kept["scores"])


def test_runs_that_cannot_be_compared_are_refused(home: Home) -> None:
    first = home.ids[0]
    best = home.folder / "train0" / "checkpoints" / "best.safetensors"
    for runs, line in (
        ("[]", "names no run"),
        (f"[{first},{first}]", "has a duplicate"),
        (f"[{first},{best}]", "twice"),
        (f"[{first},nothing]", "run=nothing is not a run in"),
    ):
        with pytest.raises(Refused, match=line):
            home.do(f"refused{abs(hash(runs))}", *TASK, f"task.runs={runs}")
    for number, (word, line) in enumerate(
        (
            ("sampling.prefix_documents=5000", "texts of 9 tokens, but 10000 are needed"),
            ("task.temperatures=[0]", "task.greedy=true"),
            ("evaluation.protocol=last", "use evaluation.protocol=document"),
            ("task.temperatures=[1,1.0]", "has a duplicate"),
        )
    ):
        with pytest.raises(Refused, match=line):
            home.compare(f"refused{number}", word)
