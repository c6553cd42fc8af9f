"""The processes that train one model together, each on its rows of every batch: data parallelism.

Every process has the whole model, and makes the same batches. It reads its rows of each, and the
gradients are added up before they are clipped, so every process takes the same step, which is that
of one process with the whole batch.

Why not ``DistributedDataParallel``: it wraps one ``forward``, and here the model is called in
pieces (truncation), and its softmax apart; it averages over processes, whatever number of targets
each of them has; it has to be told of accumulated gradients. One sum of all gradients and losses,
before they are clipped, has none of these problems. Its price: the time of the sum is not hidden
behind the backward pass.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unroll import processes
from unroll.data.batching import Batch, Share
from unroll.errors import LostProcess, Refused, first_line, require
from unroll.evaluation.perplexity import OneReader
from unroll.models.recurrent import State
from unroll.training.gradients import rows_at

KEY = "unroll/run_directory"
"""Of the run that the processes began, in the store of the launcher."""
STORE_WAIT = timedelta(seconds=30)


class OneProcess(OneReader):
    """A single process: nothing is shared out and nothing is added up."""

    rank, size = 0, 1

    def start(self, model: nn.Module, seed: int) -> None:
        """Give every process the weights of the first, and masks of dropout of its own."""

    def add_up(self, model: nn.Module, batches: Sequence[Batch], losses: list[Tensor]) -> None:
        """Replace the gradients of ``model`` and the ``losses`` by those of all processes.

        Args:
            model: its gradients are those of the mean over the whole batches, of which each
                process has its part.
            batches: the part of each batch that this process has read.
            losses: mean loss of each of these parts, ``()``.
        """

    def any(self, decision: bool) -> bool:
        """Whether any process decides so: all of them have to ask at the same step."""
        return decision

    def all(self, value: Any) -> list[Any]:
        """The value of every process."""
        return [value]

    def gathered(self, model: Any, generators: Any, carried: State) -> dict[str, Any]:
        """What the state of a training has besides: the generators and the carried state of every
        process, if there are several."""
        return {}

    def tell(self, value: Any) -> None:
        """Send a value, or the error in its place, to the other processes, which ``hear`` it."""

    def close(self) -> None:
        """Part from the other processes."""


class ManyProcesses(OneProcess):
    """Several processes: gloo connects them on processors, NCCL on GPUs, one process on each.

    Raises:
        Refused: the device cannot be shared, or the other processes are not found.
        LostProcess: from every method: another process has ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = processes.rank(), processes.size()
        require(
            device.type in ("cpu", "cuda"),
            f"device={device.type} cannot train in {self.size} processes: set device=cpu",
        )
        backend = "gloo"
        if device.type == "cuda":
            place, known = processes.local_rank(), torch.cuda.device_count()
            require(
                place < known,
                f"this machine has {known} GPUs, fewer than processes: start {known} of them "
                f"(torchrun --nproc-per-node {known}), or set device=cpu",
            )
            torch.cuda.set_device(place)
            backend = "cpu:gloo,cuda:nccl"
        store = _attempt_store()
        given: dict[str, Any] = (
            {} if store is None else {"rank": self.rank, "world_size": self.size}
        )
        try:
            dist.init_process_group(backend, store=store, **given)
        except (RuntimeError, ValueError) as error:
            raise Refused(
                f"the other processes are not found ({first_line(error, 150)}): start all of them "
                f"with torchrun --nproc-per-node {self.size} -m unroll"
            ) from error

    def start(self, model: nn.Module, seed: int) -> None:
        with _together():
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)
        if self.rank:  # the generator of the first goes on, as that of one process
            torch.manual_seed((seed + self.rank) % 2**63)

    def part(self, batch: Batch) -> Batch:
        rows = len(batch.inputs)
        first, last = (rows * end // self.size for end in (self.rank, self.rank + 1))
        counted = last > first
        if not counted:  # fewer rows than processes: read the first one
            first, last = 0, 1
        own, targets = batch.rows(first, last), batch.count
        parts = targets / own.count if counted and own.count else math.inf
        ids = batch.inputs.reshape(-1)
        return replace(own, share=Share(slice(first, last), rows, targets, parts, counted, ids))

    def add_up(self, model: nn.Module, batches: Sequence[Batch], losses: list[Tensor]) -> None:
        parameters = [each for each in model.parameters() if each.requires_grad]
        flat, ids = [], torch.empty(0)
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            elif gradient.is_sparse:
                read = [batch.share.ids for batch in batches if batch.share.ids is not None]
                ids = torch.cat(read).to(gradient.device)
                gradient = rows_at(gradient, ids)
            flat.append(gradient.reshape(-1))
        flat += [
            loss.reshape(1) / batch.share.parts for loss, batch in zip(losses, batches, strict=True)
        ]
        bucket = torch.cat(flat)
        with _together():
            dist.all_reduce(bucket)
        sums = torch.split(bucket, [len(part) for part in flat])
        losses[:] = [part.reshape(()) for part in sums[len(parameters) :]]
        for parameter, part in zip(parameters, sums, strict=False):
            if parameter.grad is not None and parameter.grad.is_sparse:
                values = part.view(len(ids), -1)
                parameter.grad = torch.sparse_coo_tensor(
                    ids[None], values, parameter.shape, check_invariants=False
                )
            else:
                parameter.grad = part.view_as(parameter)

    def any(self, decision: bool) -> bool:
        return self.sums([float(decision)])[0] > 0

    def sums(self, figures: list[float]) -> list[float]:
        found = torch.tensor(figures, dtype=torch.float64)
        with _together():
            dist.all_reduce(found)
        sums: list[float] = found.tolist()
        return sums

    def all(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(found, value)
        return found

    def gathered(self, model: Any, generators: Any, carried: State) -> dict[str, Any]:
        if carried is not None:
            carried = model.cell.map_state(carried, Tensor.cpu)
        return {"processes": self.all({"generators": generators, "state": carried})}

    def tell(self, value: Any) -> None:
        with _together():
            dist.broadcast_object_list([value], 0)

    def close(self) -> None:
        dist.destroy_process_group()

    def hear(self) -> Any:
        """What the first process tells; an error that it tells is raised."""
        found: list[Any] = [None]
        with _together():
            dist.broadcast_object_list(found, 0)
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def wait_for_first(self) -> None:
        """Wait until the first process has ended: ``torchrun`` stops it if another fails."""
        with suppress(RuntimeError):
            dist.broadcast_object_list([None], 0)


@contextmanager
def _together() -> Iterator[None]:
    """A context in which the processes wait for each other.

    Raises:
        LostProcess: one of them has ended.
    """
    try:
        yield
    except RuntimeError as error:
        raise LostProcess(
            f"another of its processes has ended or cannot be reached ({first_line(error, 100)})"
        ) from error


def connect(device: torch.device) -> OneProcess:
    """The processes that carry out this command.

    Raises:
        Refused: as ``ManyProcesses``.
    """
    return ManyProcesses(device) if processes.size() > 1 else OneProcess()


def remember(directory: Path) -> None:
    """Keep the directory of the run that was begun where it outlives the processes."""
    store = _launcher_store()
    if store is not None:
        store.set(KEY, str(directory.resolve()))


def remembered() -> Path | None:
    """The directory of the run that was begun before ``torchrun`` started the processes again;
    None if there is none."""
    if _restarts() == 0:
        return None
    store = _launcher_store()
    if store is None or not store.check([KEY]):
        return None
    return Path(store.get(KEY).decode())


def _restarts() -> int:
    """How often ``torchrun`` has started the processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def _attempt_store() -> Any:
    """A part of the launcher's store for the processes of this start alone; None if there is none.

    PyTorch itself uses the same keys after a restart, so that a process may find the address of one
    that has ended, and wait for it. The launchers of several machines count restarts each for
    itself, so the processes of those have no common name for a start.
    """
    if int(os.environ.get("GROUP_WORLD_SIZE", 1)) > 1:
        return None
    store = _launcher_store(dist.default_pg_timeout)
    return store and dist.PrefixStore(f"unroll/start-{_restarts()}", store)  # type: ignore[attr-defined]


def _launcher_store(timeout: timedelta = STORE_WAIT) -> Any:
    """The key-value store of ``torchrun`` itself, which outlives the processes that it starts."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=False, timeout=timeout
    )
