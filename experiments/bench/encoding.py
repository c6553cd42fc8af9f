"""How the rate and the memory of tokenizing go with the text and the processes.

    python -m experiments.bench.encoding FOLDER MEGABYTES SHARDS override ...

tokenizes a text of so many megabytes, which is the Lee news corpus again and again, and prints the
megabytes of text a second and the largest memory of the process and its workers as JSON. The text
is in a table on disk before the clock starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from joblib import cpu_count

from unroll.app import compose
from unroll.data.corpus import texts
from unroll.data.token_stream import encode
from unroll.registry import build

if TYPE_CHECKING:
    from experiments.bench.growth import Grown

AXIS = "megabytes of text that are tokenized"
SIZES = (5, 20, 80)
TOKENIZERS = ("word", "subword")
SHARDS = 8
SAMPLED = 0.05
"""Seconds between two looks at the memory."""
PROC = Path("/proc")


def processes() -> list[int]:
    """Numbers of processes that are compared: 1, 2, 4, ... up to the cores."""
    return [1 << power for power in range(cpu_count().bit_length()) if 1 << power <= SHARDS]


def measured() -> list[Grown]:
    """Every size, tokenizer and number of processes, each in a process of its own."""
    from experiments.bench.growth import Grown  # the processes that measure need no PyTorch

    return [
        Grown(
            AXIS, line(tokenizer, count), size, *probe(size, count, f"data/tokenizer={tokenizer}")
        )
        for tokenizer in TOKENIZERS
        for count in processes()
        for size in SIZES
    ]


def line(tokenizer: str, count: int) -> str:
    """The name of a curve."""
    return f"{tokenizer}, {count} process{'es' if count > 1 else ''}"


def probe(megabytes: float, count: int, *words: str) -> tuple[float, float]:
    """Megabytes of text a second and largest memory, with ``count`` processes that tokenize."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.bench.encoding", folder, str(megabytes)]
        ended = subprocess.run(  # noqa: S603 - this Python, and words of ours
            [*command, str(SHARDS), *words],
            env=os.environ | {"LOKY_MAX_CPU_COUNT": str(count), "RAYON_NUM_THREADS": str(count)},
            capture_output=True,
            text=True,
            check=True,
        )
    rate, most = json.loads(ended.stdout.splitlines()[-1])
    return rate, most


def tokenized(
    folder: Path, megabytes: float, shards: int, words: Sequence[str]
) -> tuple[float, float]:
    """Write the text, read it as a table, and tokenize that."""
    characters = write(folder / "text.txt", megabytes)
    places = [f"data.path={folder / 'text.txt'}", f"data.cache={folder}", f"data.shards={shards}"]
    config = compose(["data=text_files", "data.document=line", *places, *words]).data
    corpus = build("data", config)
    corpus.read()
    with peak() as found:
        start = time.perf_counter()
        encode(config, corpus)
        seconds = time.perf_counter() - start
    return characters / 1e6 / seconds, max(found) / 1e6


def write(path: Path, megabytes: float) -> int:
    """Write at least so many megabytes; the number of characters, nearly all of one byte."""
    lee = compose(["data=lee_news", f"data.cache={path.parent}"]).data
    lines = list(texts(build("data", lee).read()["train"]))
    characters = 0
    with path.open("w", encoding="utf-8") as file:
        for line in cycle(lines):
            if characters >= megabytes * 1e6:
                return characters
            characters += file.write(line + "\n")
    raise AssertionError("lines never end")


@contextmanager
def peak() -> Iterator[list[int]]:
    """Bytes that this process and its children hold, from time to time. Pages of mapped files are
    left out: the system takes them back when it needs them."""
    found, ended = [held(os.getpid())], threading.Event()

    def look() -> None:
        while not ended.wait(SAMPLED):
            found.append(held(os.getpid()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        found.append(held(os.getpid()))


def held(process: int) -> int:
    """Bytes of memory of a process and all below it that no file is behind; 0 without /proc."""
    total = 0
    try:
        for line in (PROC / str(process) / "status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += 1024 * int(line.split()[1])
        for children in (PROC / str(process) / "task").glob("*/children"):
            total += sum(held(int(child)) for child in children.read_text().split())
    except OSError:  # it has ended meanwhile
        pass
    return total


if __name__ == "__main__":
    place, size, number, *overrides = sys.argv[1:]
    print(json.dumps(tokenized(Path(place), float(size), int(number), overrides)))
