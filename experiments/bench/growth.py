"""How speed and memory grow with the sizes, each point in a process of its own.

    python -m experiments.bench.growth TEXT VOCABULARY WORDS override ...

learns at least ``WORDS`` words of the ids in ``TEXT`` and prints the rate and the largest resident
memory as JSON.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.bench import ours, text
from experiments.bench.turns import Repeated
from unroll.errors import Refused, require
from unroll.generation.footprint import resident

TINY = (
    "model=rnn model.embedding_size=16 model.hidden_size=16 data.batching.batch_size=64 "
    "data.batching.length=256"
)
TINY_VOCABULARY = 100
"""A model that is small enough to read many words in seconds."""
READ = 10_000_000
"""Words: more than stay in memory before the pages of a text are released."""
BASE = "model=lstm model.embedding_size=256 model.hidden_size=256"
TOKENS, VOCABULARY = 1_000_000, 10_000


@dataclass(frozen=True)
class Point:
    """What a process did."""

    rate: float
    """Words learned a second."""
    megabytes: float
    """Largest resident memory."""


@dataclass(frozen=True)
class Axis:
    """What grows, and the overrides and sizes of each of its points."""

    name: str
    points: Mapping[float, tuple[str, int, int]]
    """By the value of the axis: overrides, tokens of the text, tokens of the vocabulary."""
    softmaxes: tuple[str, ...] = ("full",)
    read: int = 0
    """Words that are learned at least."""


AXES = (
    Axis(
        "hidden units",
        {
            units: (f"{BASE} model.hidden_size={units}", TOKENS, VOCABULARY)
            for units in (64, 128, 256, 512, 1024)
        },
        ("full", "adaptive"),
    ),
    Axis(
        "tokens of the vocabulary",
        {size: (BASE, TOKENS, size) for size in (1_000, 10_000, 40_000, 160_000)},
        ("full", "adaptive"),
    ),
    Axis(
        "tokens of the text",
        {tokens: (TINY, tokens, TINY_VOCABULARY) for tokens in (10**6, 10**7, 10**8)},
        read=READ,
    ),
    Axis(
        "steps of a sequence",
        {
            steps: (f"{BASE} data.batching.length={steps}", TOKENS, VOCABULARY)
            for steps in (8, 32, 128, 512)
        },
    ),
)


@dataclass(frozen=True)
class Grown:
    """A point of a figure."""

    axis: str
    softmax: str
    place: float
    """On the axis."""
    rate: float
    megabytes: float


def measured(extra: Sequence[str]) -> list[Grown]:
    """Every point of every axis with these overrides; one that is refused is left out."""
    found = []
    for axis in AXES:
        for softmax in axis.softmaxes:
            for place, (words, tokens, vocabulary) in axis.points.items():
                wanted = " ".join([words, f"model/softmax={softmax}", *extra])
                with suppress(Refused):
                    point = probe(wanted, tokens, vocabulary, axis.read)
                    found.append(Grown(axis.name, softmax, place, point.rate, point.megabytes))
    return found


@functools.cache
def probe(words: str, tokens: int, vocabulary: int, read: int) -> Point:
    """A point, measured in a process of its own.

    Raises:
        Refused: the process failed; its last line says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "ids"
        text.write(place, tokens, vocabulary)
        command = [sys.executable, "-m", "experiments.bench.growth", str(place), str(vocabulary)]
        ended = subprocess.run(  # noqa: S603 - this Python, and words of ours
            [*command, str(read), *words.split()], capture_output=True, text=True, check=False
        )
    last = (ended.stderr.strip().splitlines() or ["no output"])[-1]
    require(ended.returncode == 0, last.removeprefix("unroll.errors.Refused: "))
    return Point(**json.loads(ended.stdout))


def learned(place: Path, vocabulary: int, read: int, words: Sequence[str]) -> Point:
    """Learn in this process."""
    source = text.mapped(place, vocabulary)
    turn = Repeated(ours.Learning(ours.Subject.of(words, source, "cpu")))
    turn()
    rate = turn()
    while turn.amount < read:
        rate = turn()
    return Point(rate, resident()[1] / 1e6)


def main(arguments: Sequence[str]) -> None:
    """Print what ``learned`` found."""
    place, vocabulary, read, *words = arguments
    print(json.dumps(asdict(learned(Path(place), int(vocabulary), int(read), words))))


if __name__ == "__main__":
    main(sys.argv[1:])
