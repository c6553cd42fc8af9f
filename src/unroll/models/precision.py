"""The number format of a model's products: the one place that decides it.

Weights, states, losses and sums are float32 under every precision. Products of scoring and of
generation follow the precision too.
"""

from __future__ import annotations

import functools
import platform
import time
from contextlib import AbstractContextManager, nullcontext, suppress

import torch

from unroll.errors import require_one_of
from unroll.folders import HOME, write_atomically
from unroll.models.config import PRECISIONS

GAIN = 1.2
"""``auto`` takes bfloat16 on a CPU if a product is faster by this factor. With native
instructions it is about 2; without them it is far below 1."""


def resolve_precision(name: str, device: torch.device) -> str:
    """The precision that ``auto`` means on this device; any other name is returned as it is."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and kept_gain() >= GAIN
    return "bfloat16" if native else "float32"


@functools.cache
def kept_gain() -> float:
    """``bfloat16_gain`` of this machine, measured once and kept on disk: ``auto`` has to mean the
    same in every run, and on a busy machine a second measurement could give another answer."""
    kept = HOME / ".cache" / "bfloat16" / f"{platform.node()} {torch.__version__}"
    with suppress(OSError, ValueError):
        return float(kept.read_text())
    gain = bfloat16_gain()
    with suppress(OSError):  # a folder that cannot be written costs a measurement
        write_atomically(kept, repr(gain))
    return gain


def bfloat16_gain() -> float:
    """How many times faster one thread multiplies bfloat16 than float32 matrices; 0 if oneDNN has
    no bfloat16 products for this processor. Takes less than 0.1 seconds."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return 0.0  # PyTorch's own loop is a hundred times slower: no need to wait for it
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _gain()
    finally:
        torch.set_num_threads(threads)


def _gain() -> float:
    seconds = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(10):  # in turns, so that other work on the machine slows both
        for dtype, best in seconds.items():
            rows, matrix = torch.ones(128, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
            start = time.perf_counter()
            torch.mm(rows, matrix)
            seconds[dtype] = min(best, time.perf_counter() - start)
    return seconds[torch.float32] / seconds[torch.bfloat16]


class Precision:
    """A precision by name.

    Raises:
        Refused: the name is not one of ``PRECISIONS``.
    """

    def __init__(self, name: str) -> None:
        require_one_of("precision", name, PRECISIONS)
        self.name = name

    def products(self, device: torch.device) -> AbstractContextManager[object]:
        """A context: matrix products within it are computed in this precision. float32 is the
        format of the weights themselves, so there is nothing to change."""
        if self.name == "float32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)
