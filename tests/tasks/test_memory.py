"""A training that runs out of memory: the line names the largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from unroll.config import Config
from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.models.language_model import LanguageModel
from unroll.tasks.memory import enough_memory, is_out_of_memory, largest_batch

CPU = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: 12"
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB"
STREAM = TokenStream.from_documents([np.arange(2000, dtype=np.int32) % 7])


class Small(LanguageModel):
    """A model whose memory holds so many rows."""

    rows = 0

    def initial_state(self, batch: int):
        if batch > self.rows:
            raise RuntimeError(CPU)
        return super().initial_state(batch)


@pytest.fixture
def config(composed: Callable[..., Config]) -> Config:
    sizes = ["model.embedding_size=4", "model.hidden_size=4", "data.batching.length=5"]
    return composed(*sizes, "data.batching.batch_size=48", "training.accumulation=2")


@pytest.fixture
def model(config: Config) -> Small:
    return Small(config.model, 7)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "found"), [(48, 48), (47, 24), (24, 24), (7, 6), (1, 1), (0, 0)])
def test_the_largest_batch_is_found_by_halving(config, model, rows: int, found: int) -> None:
    model.rows = rows
    assert largest_batch(config, model, STREAM) == found
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (12, "cpu is out of memory with data.batching.batch_size=48: 12 is the largest"),
        (12, "training.accumulation=8 a step is as large as before"),
        (0, "one row of data.batching.length=5: lower data.batching.length"),
        (48, "data.batching.batch_size=48 fits: lower the number of rows that are scored"),
    ],
)
@pytest.mark.parametrize("error", [RuntimeError(CPU), torch.OutOfMemoryError(CUDA), MemoryError()])
def test_a_training_out_of_memory_is_one_line_with_what_fits(
    config, model, rows: int, line: str, error: Exception
) -> None:
    model.rows = rows
    with pytest.raises(Refused) as refused, enough_memory(config, model, STREAM):
        raise error
    assert line in str(refused.value)


def test_another_error_passes(config, model) -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"), enough_memory(config, model, STREAM):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_the_batch_that_did_not_fit_is_released_before_a_smaller_one_is_tried(
    config, model
) -> None:
    held: list[object] = []

    class Batch:
        def __del__(self) -> None:
            held.append("released")

    def step() -> None:
        batch = Batch()
        assert batch
        raise RuntimeError(CPU)

    def released(batch: int):
        assert held == ["released"]
        return LanguageModel.initial_state(model, batch)

    model.initial_state = released
    with pytest.raises(Refused), enough_memory(config, model, STREAM):
        step()


@pytest.mark.parametrize("name", ["windows", "random", "sequential"])
def test_every_batching_is_tried_with_its_own_batches(composed, model, name: str) -> None:
    model.rows = 10
    sizes = ["data.batching.length=5", "data.batching.batch_size=48"]
    assert largest_batch(composed(f"data/batching={name}", *sizes), model, STREAM) == 6
