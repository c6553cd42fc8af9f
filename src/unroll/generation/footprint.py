"""What a model costs where it is deployed: bytes on disk, resident memory, milliseconds a token.

    python -m unroll.generation.footprint lstm.int8.safetensors --warm-up 20 --tokens 200

``measure`` runs that in a process of its own, which loads this model and nothing else. Memory is
counted from a process that has already run the smallest model of the same kind, so that PyTorch's
own share, its kernels included, is seen apart from the model's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unroll.errors import require_one_of
from unroll.models.config import RecurrentConfig
from unroll.models.language_model import LanguageModel
from unroll.models.quantized import Weights, quantize, quantized, weights_of
from unroll.models.recurrent import single_steps
from unroll.registry import restore

PRECISIONS = ("float32", "int8")
HEADER = "unroll"
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Footprint:
    """What ``measure`` finds; memory in bytes."""

    bytes: int
    """Size of the file of weights."""
    milliseconds_per_token: float
    """Median over tokens, written one at a time at batch 1 on one thread."""
    baseline_bytes: int
    """Resident before the model is loaded."""
    resident_bytes: int
    """Resident after it has written."""
    peak_bytes: int
    """The most that was ever resident: while it was loaded."""

    @property
    def model_bytes(self) -> int:
        """The model's own share of what is resident."""
        return self.resident_bytes - self.baseline_bytes


def export(path: Path, model: LanguageModel, precision: str) -> None:
    """Write what a device needs to run the model, in ``float32`` or ``int8``: weights, sizes."""
    require_one_of("precision", precision, PRECISIONS)
    weights = weights_of(model)
    kept = quantize(weights) if precision == "int8" else weights
    sizes = {"precision": precision, "vocabulary_size": model.vocabulary_size}
    header = json.dumps(sizes | {"model": asdict(model.config)})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, path, {HEADER: header})


def load(path: Path) -> LanguageModel:
    """The model that ``export`` wrote, to read with."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
        weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    config = restore("model", header["model"])
    return _made(header["precision"], config, header["vocabulary_size"], weights)


def _made(
    precision: str, config: RecurrentConfig, vocabulary_size: int, weights: Weights
) -> LanguageModel:
    if precision == "int8":
        return quantized(config, vocabulary_size, weights)
    model = LanguageModel(replace(config, implementation="library"), vocabulary_size)
    model.load_state_dict(weights, strict=not config.tie_weights)
    return model.eval()


def measure(path: Path, warm_up: int, tokens: int) -> Footprint:
    """Load and run an exported model in a fresh process; ``tokens`` of them are timed."""
    words = [sys.executable, "-m", "unroll.generation.footprint", str(path)]
    words += ["--warm-up", str(warm_up), "--tokens", str(tokens)]
    found = subprocess.run(
        words,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return Footprint(**json.loads(found.stdout))


def milliseconds(model: LanguageModel, warm_up: int, tokens: int) -> float:
    """Median time of a token: one step of the model and its likeliest next token."""
    token, times = torch.zeros(1, 1, dtype=torch.long), []
    with torch.inference_mode(), single_steps():
        state = model.initial_state(1)
        for _ in range(warm_up + tokens):
            start = time.perf_counter()
            hidden, state = model(token, state)
            token = model.softmax.logits(hidden[:, -1]).argmax(dim=-1, keepdim=True)
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[warm_up:])


def resident() -> tuple[int, int]:
    """Bytes of this process that are resident now, and the most that ever were. Where there is
    no /proc only the second is known, and stands for both."""
    if STATUS.exists():
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        now, most = (1024 * int(lines[key].split()[0]) for key in ("VmRSS", "VmHWM"))
        return now, most
    import resource  # no such thing on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most *= 1 if sys.platform == "darwin" else 1024
    return most, most


def main(words: list[str] | None = None) -> Footprint:
    """Measure an exported model in this process."""
    parser = argparse.ArgumentParser(prog="unroll.generation.footprint")
    parser.add_argument("path", type=Path)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    _run_the_smallest(asked.path)
    baseline, _ = resident()
    model = load(asked.path)  # held until its memory is counted
    taken = milliseconds(model, asked.warm_up, asked.tokens)
    return Footprint(asked.path.stat().st_size, taken, baseline, *resident())


def _run_the_smallest(path: Path) -> None:
    """Load and run a model of the same kind and precision that weighs next to nothing."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
    config = replace(restore("model", header["model"]), hidden_size=8, embedding_size=8)
    with tempfile.TemporaryDirectory() as folder:
        smallest = Path(folder) / "smallest.safetensors"
        export(smallest, LanguageModel(config, 16), header["precision"])
        milliseconds(load(smallest), 0, 3)


if __name__ == "__main__":
    print(json.dumps(asdict(main())))
