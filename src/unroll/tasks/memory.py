"""A training that does not fit into memory: one line, with the largest batch that does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from traceback import clear_frames

import torch

from unroll.config import Config
from unroll.data.batching import Batch, Batching
from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.models.language_model import LanguageModel
from unroll.registry import build

OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
"""In the messages of PyTorch: of CUDA and MPS, of Linux, of Windows."""


@contextmanager
def enough_memory(config: Config, model: LanguageModel, stream: TokenStream) -> Iterator[None]:
    """Explain an error of the work inside that is for want of memory.

    Raises:
        Refused: in place of such an error, with the largest batch that fits.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        clear_frames(error.__traceback__)  # they hold the batch that was too large
        batching = config.data.batching
        rows = largest_batch(config, model, stream)
        place = f"{model.device.type} is out of memory"
        tried = f"data.batching.batch_size={batching.batch_size}"
        if rows == batching.batch_size:
            raise Refused(
                f"{place}, and {tried} fits: lower the number of rows that are scored at once "
                "(see evaluation in unroll --cfg job)"
            ) from error
        if not rows:
            raise Refused(
                f"{place} with one row of data.batching.length={batching.length}: lower "
                "data.batching.length, or the sizes of the model"
            ) from error
        raise Refused(
            f"{place} with {tried}: {rows} is the largest that fits, found by halving: set "
            f"data.batching.batch_size={rows} (with training.accumulation="
            f"{config.training.accumulation * batching.batch_size // rows} a step is as large as "
            "before), or lower data.batching.length"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch or Python could not allocate memory."""
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def largest_batch(config: Config, model: LanguageModel, stream: TokenStream) -> int:
    """The rows of the largest batch that fits, found by halving the configured one; 0 if a single
    row does not fit."""
    rows = config.data.batching.batch_size
    while rows:
        batching: Batching = build("data/batching", replace(config.data.batching, batch_size=rows))
        if fits(model, next(iter(batching.batches(stream, config.seed, 0)))):
            break
        rows //= 2
    return rows


def fits(model: LanguageModel, batch: Batch) -> bool:
    """Whether the forward and the backward pass over a batch fit into memory."""
    model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()  # nothing without CUDA
    try:
        batch = batch.to(model.device)
        hidden, _ = model(batch.inputs, model.initial_state(len(batch.inputs)))
        model.softmax.loss(*batch.scored(hidden)).backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        clear_frames(error.__traceback__)
        return False
    finally:
        model.zero_grad(set_to_none=True)
    return True
