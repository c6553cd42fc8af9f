"""A model through PyTorch's compiler, for training only."""

from __future__ import annotations

from typing import Any

import torch

from unroll.errors import Refused, first_line, require
from unroll.models.language_model import LanguageModel

LEAST_STEPS = 1000
"""Steps of the shortest training that is compiled: compiling takes minutes."""


def compiled(model: LanguageModel, steps: int | None) -> Any:
    """``model`` with a compiled forward and backward pass; its weights are those of ``model``.

    Args:
        steps: of the training; None if they are not known in advance.

    Raises:
        Refused: the training is too short, or no compiler works on this machine.
    """
    require(
        steps is None or steps >= LEAST_STEPS,
        f"training.compile=true takes minutes before the first step, and this training has {steps} "
        f"steps: set training.compile=false, or train for at least {LEAST_STEPS:,} steps",
    )
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=model.device))
    except (RuntimeError, ImportError) as error:
        reason = first_line(error, 150)
        raise Refused(
            f"training.compile=true: PyTorch's compiler does not work here ({reason}): "
            "install a C++ compiler such as g++ or set CXX to one, or set training.compile=false"
        ) from error
    return torch.compile(model)
