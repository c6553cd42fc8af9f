"""A token stream as batches of ``(inputs, targets)``: windows, random, sequential.

Nothing is copied in advance: every batching computes indices into the stream, batch by batch.

    stream:  a b c d e f g h i j k l        sequential, 2 columns, length 3:

        a b c | d e f        first batch: rows abc and ghi, targets bcd and hij
        g h i | j k l        second batch: rows de. and jk. continue where those ended
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unroll.data.config import BatchingConfig, RandomConfig, SequentialConfig, WindowsConfig
from unroll.data.token_stream import TokenStream
from unroll.errors import require

IGNORE = -100
"""Target of a position that is not scored."""
WHOLE, SPREAD, SHORTEST = 0.95, 5.0, 5
"""Of random lengths: the probability of the whole length, the standard deviation, the minimum."""
AT_ONCE = 2048
"""Numbers of a shuffle that are computed together."""

Places = tuple[Any, Any]
"""An index into the first two dimensions of ``(batch, time, ...)``: two slices or numbers, or two
tensors ``(n,)`` of rows and steps."""
EVERY: Places = (slice(None), slice(None))
LAST: Places = (slice(None), -1)


class Share(NamedTuple):
    """The rows of a batch that one of several processes reads."""

    rows: slice = slice(None)
    of: int | None = None
    """Rows of the whole batch; None: these are all."""
    targets: int | None = None
    """Scored targets of the whole batch; None: these are all."""
    parts: float = 1.0
    """The number of these over that of the scored targets in ``rows``; infinite if none counts."""
    counted: bool = True
    """False: another process counts ``rows``, and this one needs something to read."""
    ids: Tensor | None = None
    """Inputs of the whole batch, ``(rows * time,)``; None: these are all."""


ALL_ROWS = Share()


@dataclass(frozen=True)
class Batch:
    """``inputs`` and ``targets``: int64 ``(batch, time)``; a target of ``IGNORE`` is not scored.
    ``carry``: the state of the previous batch continues. ``places``: the positions that are
    scored; None: they are found here, so make such a batch in the memory of the host. ``pace``: the
    factor of the learning rate in its step. ``share``: the rows of a larger batch that it is."""

    inputs: Tensor
    targets: Tensor
    carry: bool = False
    places: Places | None = None
    pace: float = 1.0
    share: Share = ALL_ROWS

    def __post_init__(self) -> None:
        if self.places is None:
            scored = self.targets != IGNORE
            found = EVERY if bool(scored.all()) else scored.nonzero(as_tuple=True)
            object.__setattr__(self, "places", found)

    def scored(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The scored positions of ``hidden (batch, time, width)``, ``(n, width)``, and their
        targets, ``(n,)``, row after row. Nothing is read back from a device."""
        places = self.places
        assert places is not None
        targets = self.targets[places].flatten()
        return hidden[places].reshape(len(targets), hidden.shape[-1]), targets

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``; the host does not wait for the copy."""
        assert self.places is not None
        rows, steps = (
            moved(place, device) if isinstance(place, Tensor) else place for place in self.places
        )
        inputs, targets = moved(self.inputs, device), moved(self.targets, device)
        return Batch(inputs, targets, self.carry, (rows, steps), self.pace, self.share)

    def rows(self, first: int, last: int) -> Batch:
        """The batch of these rows, of one in the memory of the host."""
        assert self.places is not None
        places = None if isinstance(self.places[0], Tensor) else self.places
        inputs, targets = self.inputs[first:last], self.targets[first:last]
        return replace(self, inputs=inputs, targets=targets, places=places)

    @property
    def count(self) -> int:
        """Number of scored targets."""
        assert self.places is not None
        return self.targets[self.places].numel()


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` of the host on ``device``. CUDA copies pinned memory while the host goes on; a
    batch has a few kilobytes, so pinning costs less than a stream kept on the device would."""
    pinned = tensor.pin_memory() if device.type == "cuda" and not tensor.is_cuda else tensor
    return pinned.to(device, non_blocking=True)


class Batching(Protocol):
    """The interface of every batching."""

    def steps(self, stream: TokenStream) -> int:
        """Number of batches in an epoch; where it is drawn, about its expectation.

        Raises:
            Refused: the stream is too short for one batch.
        """

    def batches(self, stream: TokenStream, seed: int, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch; the same seed and epoch give the same batches."""


def shifted(stream: TokenStream, starts: npt.NDArray[np.int64], length: int, carry: bool) -> Batch:
    """``length`` ids that begin at each start, each with the next id as its target."""
    rows = torch.from_numpy(stream.rows(starts, length + 1))
    return Batch(rows[:, :-1], rows[:, 1:], carry, EVERY)


def last_target_only(inputs: Tensor, last: Tensor) -> Batch:
    """``inputs (batch, time)``, of which only the last position is scored, with target ``last``."""
    targets = torch.full_like(inputs, IGNORE)
    targets[:, -1] = last
    return Batch(inputs, targets, places=LAST)


class WindowIndex:
    """All windows of ``length`` tokens with a next token in the same document, numbered; without
    the first ``skip`` windows of each document."""

    def __init__(self, stream: TokenStream, length: int, skip: int = 0) -> None:
        self._first = stream.offsets[:-1] + skip
        self._ends = np.cumsum(np.maximum(stream.lengths - length - skip, 0))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def starts(self, windows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Positions in the stream where the windows with these numbers start."""
        documents = np.searchsorted(self._ends, windows, side="right")
        before = np.where(documents > 0, self._ends[documents - 1], 0)
        return np.asarray(self._first[documents] + windows - before)


class Windows:
    """The lab's task: read ``length`` tokens, predict the next one, in every window."""

    def __init__(self, config: WindowsConfig) -> None:
        self.config = config

    def steps(self, stream: TokenStream) -> int:
        config = self.config
        windows = len(WindowIndex(stream, config.length))
        require(
            windows,
            f"no document is longer than data.batching.length={config.length} tokens, the longest "
            f"has {stream.lengths.max(initial=0)}: use a smaller length, or "
            "data/batching=sequential",
        )
        return -(-windows // config.batch_size)

    def batches(self, stream: TokenStream, seed: int, epoch: int) -> Iterator[Batch]:
        config = self.config
        index = WindowIndex(stream, config.length)
        order = Permutation(len(index), seed, epoch) if config.shuffle else Unshuffled(len(index))
        for windows in order.parts(config.batch_size):
            rows = torch.from_numpy(stream.rows(index.starts(windows), config.length + 1))
            yield last_target_only(rows[:, :-1], rows[:, -1])


class Random:
    """Subsequences in random order, cut from a random offset; the state starts fresh
    (d2l, section 8.3.4)."""

    def __init__(self, config: RandomConfig) -> None:
        self.config = config

    def steps(self, stream: TokenStream) -> int:
        config = self.config
        return _enough((len(stream) - 1) // config.length // config.batch_size, stream, config)

    def batches(self, stream: TokenStream, seed: int, epoch: int) -> Iterator[Batch]:
        config = self.config
        offset = 0
        if config.random_offset:
            spare = len(stream) - 1 - config.length * config.batch_size
            largest = min(config.length - 1, spare)
            offset = int(np.random.default_rng([seed, epoch]).integers(0, largest + 1))
        pieces = (len(stream) - offset - 1) // config.length
        order = Permutation(pieces, seed, epoch)
        for chosen in islice(order.parts(config.batch_size), pieces // config.batch_size):
            yield shifted(stream, offset + chosen * config.length, config.length, carry=False)


class Sequential:
    """``batch_size`` columns that each continue from batch to batch; the state is carried.

    With ``random_length`` the length of each batch is drawn as in AWD-LSTM (Merity et al. 2018,
    section 5): from a normal distribution of standard deviation 5 around the configured length with
    probability 0.95, else around half of it, rounded towards 0 and at least 5. The last batch of an
    epoch is what is left. The learning rate of a step is scaled by its length over the configured
    one.
    """

    def __init__(self, config: SequentialConfig) -> None:
        self.config = config

    def steps(self, stream: TokenStream) -> int:
        config = self.config
        targets = len(stream) // config.batch_size - 1
        steps = _enough(targets // config.length, stream, config)
        if config.random_length:
            mean = config.length * (WHOLE + (1 - WHOLE) / 2)
            return max(1, round(targets / mean))
        return steps

    def batches(self, stream: TokenStream, seed: int, epoch: int) -> Iterator[Batch]:
        config = self.config
        offset = 0
        if config.random_offset:
            spare = len(stream) - config.batch_size * (config.length + 1)
            largest = min(config.length, spare)
            offset = int(np.random.default_rng([seed, epoch]).integers(0, largest + 1))
        column = (len(stream) - offset) // config.batch_size
        starts = offset + column * np.arange(config.batch_size)
        if config.random_length:
            yield from self._of_random_lengths(stream, starts, column - 1, [seed, epoch, 0x1E46])
            return
        for step in range((column - 1) // config.length):
            yield shifted(stream, starts + step * config.length, config.length, carry=step > 0)

    def _of_random_lengths(
        self, stream: TokenStream, starts: npt.NDArray[np.int64], targets: int, seed: list[int]
    ) -> Iterator[Batch]:
        base, generator, read = self.config.length, np.random.default_rng(seed), 0
        while read < targets:
            center = base if generator.random() < WHOLE else base / 2
            drawn = max(min(SHORTEST, base), int(generator.normal(center, SPREAD)))
            length = min(drawn, targets - read)
            batch = shifted(stream, starts + read, length, carry=read > 0)
            yield replace(batch, pace=length / base)
            read += length


def _enough(steps: int, stream: TokenStream, config: BatchingConfig) -> int:
    require(
        steps > 0,
        f"{len(stream)} tokens are too few for one batch of data.batching.batch_size="
        f"{config.batch_size} rows of {config.length} steps: give more text or smaller batches",
    )
    return steps


class Unshuffled:
    """The numbers ``0 .. size-1`` in order."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return positions

    def parts(self, length: int) -> Iterator[npt.NDArray[np.int64]]:
        """The numbers at all positions, ``length`` of them at a time; the last part may be shorter.
        Many parts are computed together, since a few numbers take as long as a thousand."""
        block = length * -(-AT_ONCE // length)
        for first in range(0, self.size, block):
            numbers = self(np.arange(first, min(first + block, self.size)))
            for start in range(0, len(numbers), length):
                yield numbers[start : start + length]


class Permutation(Unshuffled):
    """A shuffle of ``0 .. size-1``, computed on demand, so that it takes no memory.

    Four rounds of a Feistel network over the smallest even number of bits that holds ``size``
    (Luby and Rackoff 1988); a value outside the range is scrambled again, so that the result
    is a permutation (cycle walking: Black and Rogaway 2002).
    """

    ROUNDS = 4

    def __init__(self, size: int, seed: int, epoch: int) -> None:
        super().__init__(size)
        self._half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
        generator = np.random.default_rng([seed, epoch, 0xF815])
        self._keys = generator.integers(1, 1 << 62, size=self.ROUNDS, dtype=np.uint64)

    def __call__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The shuffled numbers at ``positions``."""
        values = self._scramble(positions.astype(np.uint64))
        outside = values >= self.size
        while outside.any():
            values[outside] = self._scramble(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _scramble(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        half, mask = np.uint64(self._half), np.uint64((1 << self._half) - 1)
        left, right = values >> half, values & mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        return (left << half) | right


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al. 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
