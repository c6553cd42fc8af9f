"""The cost of a deployed model: bytes on disk, resident memory, milliseconds per token.

    python -m unroll.generation.footprint lstm.int8.safetensors --warm-up 20 --tokens 200

``measure`` runs that command in a separate process, which loads only this model. The process first
runs a tiny model of the same kind: the memory in use after that is PyTorch's share, and what is
added later is the model's.
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
from unroll.models.quantized import Weights, quantize, quantized_model, weights_of
from unroll.registry import restore

PRECISIONS = ("float32", "int8")
HEADER = "unroll"
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Footprint:
    """The result of ``measure``; memory in bytes."""

    bytes: int
    """Size of the file of weights."""
    milliseconds_per_token: float
    """Median over tokens, generated one at a time with batch size 1 on one thread."""
    baseline_bytes: int
    """Resident memory before the model is loaded."""
    resident_bytes: int
    """Resident memory after it has generated."""
    peak_bytes: int
    """Largest resident memory so far; it is reached while the model is loaded."""

    @property
    def model_bytes(self) -> int:
        """The model's share of the resident memory."""
        return self.resident_bytes - self.baseline_bytes


def export(path: Path, model: LanguageModel, precision: str) -> None:
    """Write weights and config of the model to a file, in ``float32`` or ``int8``.

    Raises:
        Refused: the precision is unknown.
    """
    require_one_of("precision", precision, PRECISIONS)
    weights = weights_of(model)
    kept = quantize(weights) if precision == "int8" else weights
    sizes = {"precision": precision, "vocabulary_size": model.vocabulary_size}
    header = json.dumps(sizes | {"model": asdict(model.config)})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, path, {HEADER: header})


def load(path: Path) -> LanguageModel:
    """The model that ``export`` wrote, in evaluation mode."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
        weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    config = restore("model", header["model"])
    return _restored(header["precision"], config, header["vocabulary_size"], weights)


def _restored(
    precision: str, config: RecurrentConfig, vocabulary_size: int, weights: Weights
) -> LanguageModel:
    if precision == "int8":
        return quantized_model(config, vocabulary_size, weights)
    model = LanguageModel(replace(config, implementation="library"), vocabulary_size)
    model.load_state_dict(weights, strict=not config.tie_weights)
    return model.eval()


def measure(path: Path, warm_up: int, tokens: int) -> Footprint:
    """Load and run an exported model in a new process: ``warm_up`` tokens that are not timed,
    then ``tokens`` that are."""
    command = [sys.executable, "-m", "unroll.generation.footprint", str(path)]
    command += ["--warm-up", str(warm_up), "--tokens", str(tokens)]
    finished = subprocess.run(  # noqa: S603  words of ours, and no shell
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return Footprint(**json.loads(finished.stdout))


def milliseconds(model: LanguageModel, warm_up: int, tokens: int) -> float:
    """Median time of a token: one step of the model and the argmax of its logits."""
    token, times = torch.zeros(1, 1, dtype=torch.long), []
    with torch.inference_mode():
        state = model.initial_state(1)
        for _ in range(warm_up + tokens):
            start = time.perf_counter()
            hidden, state = model(token, state)
            token = model.softmax.logits(hidden[:, -1]).argmax(dim=-1, keepdim=True)
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[warm_up:])


def resident() -> tuple[int, int]:
    """Resident bytes of this process: now, and the largest so far. Without /proc only the second
    is known, and is given for both."""
    if STATUS.exists():
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        now, peak = (1024 * int(lines[key].split()[0]) for key in ("VmRSS", "VmHWM"))
        return now, peak
    import resource  # not available on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return peak, peak


def main(arguments: list[str] | None = None) -> Footprint:
    """Measure an exported model in this process."""
    parser = argparse.ArgumentParser(prog="unroll.generation.footprint")
    parser.add_argument("path", type=Path)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)
    _run_tiny_model(parsed.path)
    baseline, _ = resident()
    model = load(parsed.path)  # the variable keeps it in memory until that is measured
    median = milliseconds(model, parsed.warm_up, parsed.tokens)
    return Footprint(parsed.path.stat().st_size, median, baseline, *resident())


def _run_tiny_model(path: Path) -> None:
    """Load and run a model of the same kind and precision with very few weights."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
    config = replace(restore("model", header["model"]), hidden_size=8, embedding_size=8)
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny.safetensors"
        export(tiny, LanguageModel(config, 16), header["precision"])
        milliseconds(load(tiny), 0, 3)


if __name__ == "__main__":
    print(json.dumps(asdict(main())))
