"""A trained language model in int8: a quarter of the bytes, so that a token costs less to write.

Every matrix becomes int8, with one float32 scale for each row: ``w = scale * int8`` (embedding,
W_ih, W_hh, softmax; a tied matrix once). torchao quantizes. Only weights are rounded: the model
computes what the float32 model with the rounded weights computes, up to the rounding of its
kernels. Biases, states and everything between the products stay float32.

torchao's own product converts the whole matrix at every call unless it is compiled, which takes
longer than the float32 product (see ``docs/design.md``). So the products here are PyTorch's kernel
for int8 weights for a few rows, and for many rows float32 products of blocks that stay in cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.errors import Refused, require
from unroll.models.config import RecurrentConfig, require_one_direction
from unroll.models.language_model import LanguageModel
from unroll.models.mogrifier import factors, mogrified
from unroll.models.recurrent import State
from unroll.models.steps import step_of

SCALE = ".scale"
"""Added to the name of a matrix, the name of its scales."""
EMBEDDING = "embedding.weight"
MOGRIFIER = "cell.module.mogrifier"
FEW_ROWS = 4
"""Rows up to which reading int8 is faster than converting it to float32 block by block."""
KERNEL_WIDTH = 32
"""The kernel for few rows reads so many columns at once: rows are padded with zeros."""
BLOCK = 512
"""Rows of a matrix that are converted at once."""

Weights = Mapping[str, Tensor]
Product = Callable[[Tensor], Tensor]


def require_quantizable(config: Any, key: str, value: str) -> None:
    """Raise ``Refused`` if the model cannot be converted to int8, which ``key=value`` asks for.

    Raises:
        Refused: it is not recurrent, is bidirectional, or has parts between its layers.
    """
    require(
        isinstance(config, RecurrentConfig),
        f"model={config.name} cannot be converted to int8: take a run of rnn, lstm or gru",
    )
    require_one_direction(config.bidirectional, key, value)
    for part in ("layer_norm", "residual", "last_size"):
        given = str(getattr(config, part)).lower()
        require(
            not getattr(config, part),
            f"model.{part}={given} cannot be converted to int8, which {key}={value} needs: take "
            "another run",
        )


def weights_of(model: LanguageModel) -> dict[str, Tensor]:
    """The float32 weights by name, a tied matrix once, under the embedding's name."""
    return {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}


def quantize(weights: Weights) -> dict[str, Tensor]:
    """Each matrix as int8 rows and their scales, symmetric around zero; vectors unchanged.

    Raises:
        Refused: torchao is not installed.
    """
    logging.disable(logging.WARNING)  # torchao warns of kernels for devices that are not there
    try:
        from torchao.quantization import Int8Tensor, PerRow
    except ImportError as error:
        raise Refused(
            "int8 needs the package torchao: install it with pip install 'unroll[int8]'"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    found = {}
    for name, tensor in weights.items():
        if tensor.dim() < 2:
            found[name] = tensor
            continue
        matrix = Int8Tensor.from_hp(tensor, PerRow())
        found[name], found[name + SCALE] = matrix.qdata, matrix.scale.flatten()
    return found


def quantized_model(
    config: RecurrentConfig, vocabulary_size: int, weights: Weights
) -> LanguageModel:
    """The model that computes with the int8 weights of ``quantize``, for inference only, on a CPU.

    Raises:
        Refused: such a model cannot be converted to int8.
    """
    require_quantizable(config, "precision", "int8")
    with torch.device("meta"):  # no memory for float32 weights: each part is replaced
        model: Any = LanguageModel(config, vocabulary_size)
    if not config.one_hot:
        model.embedding = Int8Embedding(weights)
    model.cell.module = Int8Layers(config, weights)
    model.softmax.replace_linear(lambda name: Int8Linear(weights, f"softmax.{name}"))
    found: LanguageModel = model.eval()
    return found


class Int8Embedding(nn.Module):
    """Ids to rows of an int8 matrix, in float32."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.rows, self.scale = weights[EMBEDDING], weights[EMBEDDING + SCALE]

    def forward(self, ids: Tensor) -> Tensor:
        return self.rows[ids] * self.scale[ids].unsqueeze(-1)


class Int8Linear(nn.Module):
    """The linear layer ``name``: ``(..., in)`` to ``(..., out)``. If it has no matrix of its own,
    it is tied to the embedding's; if it has no bias, that is zero."""

    def __init__(self, weights: Weights, name: str, kind: str = "") -> None:
        super().__init__()
        matrix = f"{name}.weight{kind}"
        matrix = matrix if matrix in weights else EMBEDDING
        self.rows, self.scale = weights[matrix], weights[matrix + SCALE]
        self.padding = (0, -self.rows.shape[1] % KERNEL_WIDTH)
        if any(self.padding):
            self.rows = F.pad(self.rows, self.padding)
        bias = weights.get(f"{name}.bias{kind}", torch.zeros_like(self.scale))
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """``FEW_ROWS`` rows or fewer are computed by a faster kernel, which rounds to bfloat16 on
        the way, so a row alone differs a little from the same row among many."""
        flat = F.pad(hidden.reshape(-1, hidden.shape[-1]), self.padding)
        scores = self._few(flat) if len(flat) <= FEW_ROWS else self._many(flat)
        return scores.view(*hidden.shape[:-1], -1)

    def _few(self, hidden: Tensor) -> Tensor:
        # the kernel is fast for bfloat16 inputs only, and gives bfloat16
        scores = torch._weight_int8pack_mm(hidden.bfloat16(), self.rows, self.scale.bfloat16())
        return scores + self.bias

    def _many(self, hidden: Tensor) -> Tensor:
        scores = hidden.new_empty(len(hidden), len(self.rows))
        blocks = zip(torch.split(scores, BLOCK, 1), torch.split(self.rows, BLOCK), strict=True)
        for columns, rows in blocks:
            columns.copy_(F.linear(hidden, rows.to(hidden.dtype)))
        return scores.mul_(self.scale).add_(self.bias)

    def repeated(self, steps: int) -> Product:
        """The same layer, to be used for ``steps`` steps: for many, converted once."""
        if steps <= FEW_ROWS:
            return self
        matrix = self.rows * self.scale.unsqueeze(1)
        return lambda hidden: F.linear(F.pad(hidden, self.padding), matrix, self.bias)


class Int8Layers(nn.Module):
    """A stack of recurrent layers, with states of the same shapes as PyTorch's modules."""

    def __init__(self, config: RecurrentConfig, weights: Weights) -> None:
        super().__init__()
        self.step = step_of(config)
        layers = range(config.layers)
        self.inputs, self.recurrent = (
            [Int8Linear(weights, "cell.module", f"_{kind}_l{n}") for n in layers]
            for kind in ("ih", "hh")
        )
        self.layers = nn.ModuleList(self.inputs + self.recurrent)
        self.rounds = [
            [
                [Int8Linear(weights, MOGRIFIER, f"_{name}_l{n}") for name in names]
                for names in factors(config)
            ]
            for n in layers
        ]

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """``(batch, time, input)`` to ``(batch, time, hidden)`` and the state after it."""
        parts = state if isinstance(state, tuple) else (state,)
        ends, steps = [], inputs.shape[1]
        for layer, (read, carry) in enumerate(zip(self.inputs, self.recurrent, strict=True)):
            now = [part[layer] for part in parts]
            product, outputs = carry.repeated(steps), []
            rounds = [[each.repeated(steps) for each in part] for part in self.rounds[layer]]
            project = read.repeated(steps) if rounds else read
            for step in (inputs if rounds else read(inputs)).unbind(dim=1):
                if rounds:
                    x, h = mogrified(step, now[0], rounds)
                    step, now = project(x), [h, *now[1:]]
                now = self.step(step, product(now[0]), now)
                outputs.append(now[0])
            inputs = torch.stack(outputs, dim=1)
            ends.append(now)
        after = tuple(torch.stack(part) for part in zip(*ends, strict=True))
        return inputs, after if isinstance(state, tuple) else after[0]
