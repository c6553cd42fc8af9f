"""The recall corpus: its documents, what it refuses, and its best perplexity against oracles."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from unroll.app import compose
from unroll.data.batching import IGNORE
from unroll.data.recall import Recall, best_perplexity
from unroll.data.token_stream import TokenStream, encode
from unroll.errors import Refused
from unroll.evaluation.perplexity import score
from unroll.registry import build

SYMBOLS, DISTRACTORS = 2, 3


def recall(cache: Path, *words: str):
    return compose(["data=recall", f"data.cache={cache}", *words]).data


def documents(config, split: str = "train") -> list[list[str]]:
    return [text.split() for text in build("data", config).read()[split]["text"]]


@pytest.mark.parametrize("gap", [0, 1, 7])
def test_a_document_is_a_symbol_a_gap_and_the_symbol_again(tmp_path: Path, gap: int) -> None:
    found = documents(recall(tmp_path, f"data.gap={gap}", "data.documents=2000"))
    assert len(found) == 1600  # the rest is held out
    assert all(len(words) == gap + 2 and words[0] == words[-1] for words in found)
    symbols = Counter(words[0] for words in found)
    distractors = Counter(word for words in found for word in words[1:-1])
    assert len(symbols) == 8
    assert len(distractors) == (8 if gap else 0)
    assert not set(symbols) & set(distractors)
    for counts in (symbols, distractors):  # five standard deviations of a fair draw
        mean = counts.total() / 8
        assert all(abs(count - mean) < 5 * math.sqrt(mean) for count in counts.values())


def test_the_draw_follows_its_seed_and_the_fingerprint_every_key(tmp_path: Path) -> None:
    base = recall(tmp_path, "data.documents=50")
    assert documents(base) == documents(recall(tmp_path / "other", "data.documents=50"))
    prints = {Recall(base).fingerprint()}
    changes = ("split_seed=1", "gap=9", "symbols=9", "distractors=9", "documents=49")
    for change in changes:
        other = recall(tmp_path, "data.documents=50", f"data.{change}")
        prints.add(Recall(other).fingerprint())
    assert len(prints) == 1 + len(changes)
    reseeded = recall(tmp_path, "data.documents=50", "data.split_seed=1")
    assert documents(reseeded) != documents(base)


def test_the_held_out_splits_are_other_draws(tmp_path: Path) -> None:
    config = recall(tmp_path, "data.documents=100", "data.gap=20")
    splits = [documents(config, split) for split in ("train", "valid", "test")]
    assert [len(split) for split in splits] == [80, 10, 10]
    assert len({tuple(words) for split in splits for words in split}) == 100


def test_every_window_asks_for_the_symbol_it_starts_with(tmp_path: Path) -> None:
    config = recall(tmp_path, "data.documents=100", "data.gap=6")
    stream = encode(config, build("data", config)).streams["train"]
    batches = list(build("data/batching", config.batching).batches(stream, 1, 0))
    assert sum(len(batch.inputs) for batch in batches) == 80
    for batch in batches:
        assert batch.inputs.shape[1] == 7
        assert (batch.targets[:, :-1] == IGNORE).all()
        assert torch.equal(batch.targets[:, -1], batch.inputs[:, 0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.gap=20", "data.batching.length=20"), r"data\.gap=20 .*batching\.length=21"),
        (("data.gap=4", "data.batching.length=9"), r"data\.batching\.length=9: .*length=5"),
        (
            ("data.gap=20", "data/batching=sequential", "data.batching.length=8"),
            r"data\.gap=20 .*data\.gap=7",
        ),
        (("data.gap=-1",), r"data\.gap=-1 must be at least 0"),
        (("data.symbols=1",), r"data\.symbols=1 must be at least 2"),
        (("data.distractors=0",), r"data\.distractors=0 must be at least 1"),
        (("data.documents=0",), r"data\.documents=0 must be at least 1"),
        (("data/tokenizer=character",), r"use data/tokenizer=word"),
        (("data.append_eos=true",), r"data\.append_eos=false"),
    ],
)
def test_a_config_that_makes_recall_impossible_is_refused(tmp_path, words, message) -> None:
    with pytest.raises(Refused, match=message):
        recall(tmp_path, *words)


# The best perplexity: every document there can be, once each, so that shares are probabilities


def all_documents(gap: int) -> list[list[int]]:
    """Symbols are 0 .. SYMBOLS - 1, distractors come after them."""
    distractors = range(SYMBOLS, SYMBOLS + DISTRACTORS)
    return [
        [symbol, *between, symbol]
        for symbol in range(SYMBOLS)
        for between in product(distractors, repeat=gap)
    ]


class Told:
    """The softmax of a model whose hidden state is ``log p`` itself."""

    def score(self, hidden, targets):
        logs = hidden.gather(1, targets[:, None])
        return -logs.double().sum().item(), int((hidden.argmax(dim=1) == targets).sum())


class Oracle(torch.nn.Module):
    """A model that says ``log p`` of the next token given what was read since the state began,
    by counting over all documents."""

    bidirectional = False
    device = torch.device("cpu")

    def __init__(self, gap: int, protocol: str, context: int) -> None:
        super().__init__()
        self.gap, self.protocol = gap, protocol
        self.softmax = Told()
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        words = all_documents(gap)
        if protocol == "handout":
            words = [text[:-1] for text in words]
        for text in words:
            for i in range(1, len(text)):
                known = text[max(0, i - context) : i] if self.limited else text[:i]
                self.counts[tuple(known)][text[i]] += 1

    @property
    def limited(self) -> bool:
        return self.protocol in ("window", "handout")

    def initial_state(self, batch: int) -> list[tuple[int, ...]]:
        return [()] * batch

    def forward(self, inputs, state):
        logs = torch.full((*inputs.shape, SYMBOLS + DISTRACTORS), -math.inf)
        ends = []
        for row, words in enumerate(inputs.tolist()):
            read = state[row]
            for step, word in enumerate(words):
                read = (*read, word)
                if len(read) == self.gap + 2 and self.protocol == "stream":
                    read, seen = (), Counter(range(SYMBOLS))
                else:
                    seen = self.counts.get(read, Counter())
                for token, count in seen.items():
                    logs[row, step, token] = math.log(count / seen.total())
            ends.append(read)
        return logs, ends


@pytest.mark.parametrize("gap", [0, 1, 2, 4])
@pytest.mark.parametrize("context", [1, 2, 3, 4, 5, 100])
@pytest.mark.parametrize("protocol", ["stream", "document", "last", "window", "handout"])
def test_the_best_perplexity_is_that_of_a_model_that_knows_the_answer(
    composed, protocol: str, context: int, gap: int
) -> None:
    if protocol == "handout" and gap == 0:
        return  # two words: one is not scored, the other has nothing before it
    words = ["data=recall", f"data.gap={gap}", f"data.symbols={SYMBOLS}"]
    config = composed(*words, f"data.distractors={DISTRACTORS}").data
    stream = TokenStream.from_documents([np.array(text) for text in all_documents(gap)])
    setting = replace(composed().evaluation, protocol=protocol, context=context, rows=50)
    found = score(Oracle(gap, protocol, context), stream, setting, unknown=-1)
    best = best_perplexity(config, protocol, context, stream.documents)
    assert best == pytest.approx(found.perplexity, rel=1e-5)


def test_the_best_perplexity_by_the_document_is_the_distractors_alone(composed) -> None:
    config = composed("data=recall", "data.gap=10", "data.distractors=8").data
    assert best_perplexity(config, "document", 100, 5) == pytest.approx(8 ** (10 / 11))
    assert best_perplexity(config, "last", 100, 5) == 1.0
    with_gap = best_perplexity(config, "window", 11, 5)
    assert with_gap == best_perplexity(config, "document", 100, 5)
    assert best_perplexity(config, "window", 10, 5) > with_gap
