"""States of random generators: what is restored is drawn again."""

from __future__ import annotations

import random

import numpy as np
import torch

from unroll.training import generators
from unroll.training.generators import generator_states, set_generator_states

CPU = torch.device("cpu")


def drawn() -> tuple[float, float, float, float]:
    return random.random(), np.random.normal(), np.random.random(), float(torch.rand(1))


def test_every_generator_continues_from_its_state():
    np.random.normal()  # NumPy keeps the second of each pair of normal numbers
    states = generator_states(CPU)
    first, second = drawn(), drawn()
    set_generator_states(states, CPU)
    assert drawn() == first
    assert drawn() == second


def test_the_generator_of_the_device_is_part_of_the_state(monkeypatch):
    class Device:
        """Stands for torch.cuda or torch.mps."""

        state = torch.tensor([3], dtype=torch.uint8)

        def get_rng_state(self) -> torch.Tensor:
            return self.state

        def set_rng_state(self, state: torch.Tensor) -> None:
            self.state = state

    device = Device()
    monkeypatch.setattr(generators, "_device_module", lambda asked: {"cuda": device}[asked.type])
    states = generator_states(torch.device("cuda"))
    device.state = torch.tensor([4], dtype=torch.uint8)
    set_generator_states(states, torch.device("cuda"))
    assert device.state.tolist() == [3]
