"""PyTorch's word language model, run as it is: its own program in a process of its own, its speed
and perplexity read from its log.

Its dictionary has the words of all three files of the corpus, where ours has those of the training
text; on Penn Treebank both have the same words.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from unroll.errors import require

MODELS = {"rnn": "RNN_TANH", "gru": "GRU", "lstm": "LSTM"}
BATCH, STEPS = 20, 35
LINES = 2
"""Lines of its log in a turn, after the first, which is its warm-up."""
_SPEED = re.compile(r"\| ms/batch\s+([\d.]+) \|")
_EPOCH = re.compile(r"end of epoch\s+(\d+) \| time:\s*([\d.]+)s \|.*valid ppl\s+([\d.]+)")


@dataclass(frozen=True)
class Epoch:
    """The end of an epoch in the log."""

    seconds: float
    """Of this epoch, its validation included."""
    perplexity: float
    """On the validation text."""


def milliseconds(log: Iterable[str]) -> Iterator[float]:
    """Milliseconds a batch, one for each line of the log that says so."""
    return (float(found[1]) for line in log if (found := _SPEED.search(line)))


def epochs(log: Iterable[str]) -> Iterator[Epoch]:
    """The epochs that a log has the end of."""
    found = (_EPOCH.search(line) for line in log)
    return (Epoch(float(match[2]), float(match[3])) for match in found if match)


def program(checkout: str) -> Path:
    """The program in a checkout of pytorch/examples, or in its folder word_language_model.

    Raises:
        Refused: it is not there.
    """
    root = Path(checkout)
    places = [root / "main.py", root / "word_language_model" / "main.py"]
    for place in places:
        if place.is_file() and (place.parent / "model.py").is_file():
            return place.resolve()
    require(
        False,
        f"PEER={checkout}: no word_language_model/main.py in it: give a checkout of "
        "github.com/pytorch/examples, or its folder word_language_model",
    )
    raise AssertionError


class Log:
    """The lines that a process prints, and the last one read, which says why it stopped."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self.last = lines, ""

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.last = line.strip() or self.last
            yield line


@contextmanager
def running(checkout: str, corpus: str, options: Sequence[str]) -> Iterator[Log]:
    """The log of the program, which is ended with the context.

    Args:
        corpus: folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt.
    """
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "valid", "test"):
            source = Path(corpus) / f"ptb.{split}.txt"
            require(source.is_file(), f"PENN_TREEBANK={corpus}: no ptb.{split}.txt in it")
            (Path(folder) / f"{split}.txt").symlink_to(source.resolve())
        place = program(checkout)
        command = [sys.executable, "-u", str(place), "--data", folder, *options]
        command += ["--save", str(Path(folder) / "model.pt")]
        process = subprocess.Popen(  # noqa: S603 - the program that PEER names
            command,
            cwd=place.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert process.stdout is not None
        try:
            yield Log(process.stdout)
        finally:
            process.kill()
            process.communicate()


def sizes(cell: str, units: int) -> list[str]:
    """The options of two layers of ``units``."""
    words = f"--model {MODELS[cell]} --emsize {units} --nhid {units} --nlayers 2"
    return [*words.split(), "--batch_size", str(BATCH), "--bptt", str(STEPS)]


def words_a_second(checkout: str, corpus: str, cell: str, units: int) -> float:
    """Words that it learns a second, from a few lines of its log."""
    batches = max(2, 2000 // units)
    options = [*sizes(cell, units), "--epochs", "1", "--log-interval", str(batches)]
    with running(checkout, corpus, options) as log:
        found = list(islice(milliseconds(log), 1, 1 + LINES))
        require(len(found) == LINES, f"PEER={checkout}: no speed in its log; it ends: {log.last}")
    return 1000 * BATCH * STEPS / statistics.mean(found)


def trained(checkout: str, corpus: str, cell: str, units: int, count: int) -> list[Epoch]:
    """Its first ``count`` epochs with its defaults."""
    with running(checkout, corpus, [*sizes(cell, units), "--epochs", str(count)]) as log:
        found = list(islice(epochs(log), count))
        require(len(found) == count, f"PEER={checkout}: too few epochs; its log ends: {log.last}")
    return found
