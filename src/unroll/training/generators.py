"""The states of the random generators that a training draws from."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def generator_states(device: torch.device) -> dict[str, Any]:
    """The states of the global generators of Python, NumPy, PyTorch and ``device``, as numbers,
    strings, lists, tuples and tensors."""
    numpy_state: Any = np.random.get_state(legacy=False)
    key = numpy_state["state"]["key"].tolist()
    return {
        "python": random.getstate(),
        "numpy": numpy_state | {"state": numpy_state["state"] | {"key": key}},
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else _device_module(device).get_rng_state(),
    }


def set_generator_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the global generators to what ``generator_states`` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["device"] is not None:
        _device_module(device).set_rng_state(states["device"])


def _device_module(device: torch.device) -> Any:
    """``torch.cuda`` or ``torch.mps``."""
    return torch.get_device_module(device)
