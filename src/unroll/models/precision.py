"""The number format of a model's products: the one place that decides it.

Weights, states between calls, losses and sums are float32 under every precision.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from unroll.errors import require_one_of
from unroll.models.config import PRECISIONS


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
        return nullcontext()
