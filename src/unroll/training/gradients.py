"""Gradients before the optimizer uses them: their norm, clipping, the rows of an embedding.

A batch of n tokens reads at most n of the V rows of an embedding, so its gradient is kept as these
rows. A dense matrix ``(V, width)`` of zeros with a few rows in it costs more to make and to pass
over than the rest of a step. All shapes follow from n: nothing here waits for a device.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unroll.errors import require
from unroll.models.language_model import LanguageModel
from unroll.training.config import OptimizerConfig

SPARSE_FROM = 4096
"""Rows of the smallest embedding whose gradient is kept as rows. A smaller matrix is passed over in
less time than its rows are merged."""


def sparse_embedding(model: LanguageModel, config: OptimizerConfig) -> Tensor | None:
    """The model's embedding matrix, whose gradients are sparse from now on; None if its gradients
    stay dense: it is small, it is tied (the softmax gives every row a gradient), or its inputs are
    one-hot.

    Raises:
        Refused: the config needs the rows of a matrix that is tied or does not exist.
    """
    embedding = None if model.config.tie_weights else model.embedding
    require(
        embedding is not None or not config.needs_rows,
        "optimizer.embedding_rows=touched needs learned embeddings that are not tied: set "
        "model.tie_weights=false and model.one_hot=false, or optimizer.embedding_rows=all",
    )
    if embedding is None or (embedding.num_embeddings < SPARSE_FROM and not config.needs_rows):
        return None
    embedding.sparse = True
    return embedding.weight


def last_places(ids: Tensor, rows: int) -> Tensor:
    """For every id below ``rows`` the last of its places in ``ids (n,)``, ``(rows,)``; 0 for one
    that has none."""
    places = torch.arange(len(ids), device=ids.device)
    last = torch.zeros(rows, dtype=torch.int64, device=ids.device)
    return last.scatter_reduce_(0, ids, places, "amax")


def entry_of_each(ids: Tensor, rows: int) -> Tensor:
    """For every id in ``ids (n,)`` the last of the places where the same id is, ``(n,)``."""
    return last_places(ids, rows)[ids]


def rows_at(gradient: Tensor, ids: Tensor) -> Tensor:
    """The rows of a sparse gradient ``(rows, width)`` as ``(n, width)``: the sum of a row at the
    last place of its id in ``ids (n,)``, which has all of them, and zeros at the other places."""
    entries = last_places(ids, len(gradient))[gradient._indices()[0]]
    values = gradient._values()
    return values.new_zeros(len(ids), values.shape[1]).index_add_(0, entries, values)


def merge_rows(gradient: Tensor) -> Tensor:
    """An equal sparse gradient ``(rows, width)`` with the sum of each row in its last entry and
    zeros in its others, so that the norm of the values is the norm of the gradient. PyTorch's
    ``coalesce`` drops the others, and waits for the device to know how many are left."""
    ids, values = gradient._indices(), gradient._values()
    entries = entry_of_each(ids[0], len(gradient))
    sums = torch.zeros_like(values).index_add_(0, entries, values)
    return torch.sparse_coo_tensor(
        ids, sums, gradient.shape, check_invariants=False, is_coalesced=False
    )


def clip_gradients(parameters: Iterable[nn.Parameter], bound: float | None) -> Tensor:
    """Scale the gradients so that their norm over all parameters is at most ``bound`` (Pascanu et
    al. 2013); None: leave them. The result is the norm before, on the device."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = merge_rows(parameter.grad)
            gradients.append(parameter.grad._values())
        else:
            gradients.append(parameter.grad)
    flat = [gradient.reshape(-1) for gradient in gradients]
    # one pass, twice as fast on a CPU as PyTorch's norm, and its sums lose less
    norm = torch.stack([part.dot(part) for part in flat]).sum().sqrt()
    if bound is not None:
        torch._foreach_mul_(gradients, (bound / (norm + 1e-6)).clamp(max=1.0))
    return norm


class KeptGradient:
    """A context for the step of an optimizer that needs a dense gradient of an embedding: it is one
    matrix that is kept, into which the rows are written before and zeros afterwards. The step is
    exactly that of a dense gradient."""

    def __init__(self, embedding: Tensor) -> None:
        self.embedding, self.dense = embedding, torch.zeros_like(embedding.detach())

    def __enter__(self) -> None:
        gradient = self.embedding.grad
        assert gradient is not None
        self.ids = gradient._indices()[0]
        self.embedding.grad = self.dense.add_(gradient)

    def __exit__(self, *error: object) -> None:
        self.dense.index_fill_(0, self.ids, 0.0)
        self.embedding.grad = None
