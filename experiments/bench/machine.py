"""What the machine can do, measured: matrix products by precision, and reading memory."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from unroll.models.precision import GAIN

SIDES = (256, 512, 1024, 2048)
"""Of the square matrices that are multiplied."""
LONGEST = 0.1
"""Seconds of a product after which none of a larger side is tried: bfloat16 may be emulated."""
BYTES = 1 << 28
"""That are read and copied: more than any cache holds."""
REPEATS, ENOUGH = 8, 1.0
"""Times that each work is done at most, and seconds after which no more are needed."""


@dataclass(frozen=True)
class Machine:
    """A machine and its rates."""

    device: str
    facts: list[str] = field(default_factory=list)
    products: dict[str, float] = field(default_factory=dict)
    """Operations a second of matrix products by precision."""
    bandwidth: float = 0.0
    """Bytes a second that memory is read with."""

    @property
    def native_bfloat16(self) -> bool:
        """Whether bfloat16 is multiplied faster than float32."""
        return self.products["bfloat16"] >= GAIN * self.products["float32"]

    def rate(self, precision: str) -> float:
        """Operations a second of a precision; int8 has no bar of its own and takes float32's."""
        return self.products.get(precision, self.products["float32"])


def measure(device: str) -> Machine:
    """The rates of this machine's processor or GPU."""
    products = {precision: product_rate(device, precision) for precision in ("float32", "bfloat16")}
    return Machine(device, facts(device), products, bandwidth(device))


def product_rate(device: str, precision: str) -> float:
    """Operations a second of a product of two square matrices, the best of several sides."""
    dtype, rate = getattr(torch, precision), 0.0
    for side in SIDES:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in "ab")
        seconds = best(functools.partial(torch.mm, a, b), device)
        rate = max(rate, 2 * side**3 / seconds)
        if seconds > LONGEST:
            break
    return rate


def bandwidth(device: str) -> float:
    """Bytes a second of memory: the better of a sum, which reads, and a copy, which also writes."""
    source = torch.ones(BYTES // 4, device=device)
    target = torch.empty_like(source)
    read = BYTES / best(source.sum, device)
    return max(read, 2 * BYTES / best(lambda: target.copy_(source), device))


def best(work: Callable[[], object], device: str) -> float:
    """The shortest of several times, in seconds; the first, which may compile or allocate, is not
    among them."""
    times: list[float] = []
    while len(times) < 2 or (len(times) <= REPEATS and sum(times) < ENOUGH):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def facts(device: str) -> list[str]:
    """Processor or GPU, threads, versions."""
    if device == "cuda":
        return [torch.cuda.get_device_name(), f"PyTorch {torch.__version__}"]
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    capability = torch.backends.cpu.get_cpu_capability()
    return [processor(), cores, f"PyTorch {torch.__version__} with {capability}"]


def processor() -> str:
    """The processor's name as the system gives it."""
    place = Path("/proc/cpuinfo")
    if place.exists():
        for line in place.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def devices() -> list[str]:
    """The devices of this machine that are measured."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
