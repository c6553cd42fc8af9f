"""A trained language model in int8: weights and products, as for a phone.

Every matrix becomes int8, with one float32 scale for each row: ``w = scale * int8``, where the
largest entry of a row becomes 127 (embedding, W_ih, W_hh, softmax; a tied matrix once). Biases,
states and everything between the products stay float32. The products of cell and softmax are
dynamically quantized: their input becomes int8 too, with a scale computed at run time, and sums
are integers. Rows of the embedding are looked up and converted back to float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unroll.errors import require
from unroll.models.config import RecurrentConfig, RNNConfig, require_one_direction
from unroll.models.language_model import LanguageModel
from unroll.models.recurrent import State

SCALE = ".scale"
"""Added to the name of a matrix, the name of its scales."""
EMBEDDING = "embedding.weight"

Weights = Mapping[str, Tensor]


def require_quantizable(config: Any) -> None:
    """Raise ``Refused`` if the model cannot be converted to int8.

    Raises:
        Refused: it is not recurrent, or it is bidirectional.
    """
    require(
        isinstance(config, RecurrentConfig),
        f"model={config.name} has no matrices to convert to int8: take a run of rnn, lstm or gru",
    )
    require_one_direction(config.bidirectional, "task", "deploy")


def weights_of(model: LanguageModel) -> dict[str, Tensor]:
    """The float32 weights by name, a tied matrix once, under the embedding's name."""
    return {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}


def quantize(weights: Weights) -> dict[str, Tensor]:
    """Each matrix as int8 rows and their scales, symmetric around zero; vectors unchanged."""
    found = {}
    for name, tensor in weights.items():
        if tensor.dim() < 2:
            found[name] = tensor
            continue
        scale = tensor.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        found[name] = (tensor / scale[:, None]).round().to(torch.int8)
        found[name + SCALE] = scale
    return found


def quantized_model(
    config: RecurrentConfig, vocabulary_size: int, weights: Weights
) -> LanguageModel:
    """The model that computes with the int8 weights of ``quantize``, for inference only.

    Whichever implementation it was trained with, the products are PyTorch's int8 ones.

    Raises:
        Refused: such a model cannot be converted to int8.
    """
    require_quantizable(config)
    with torch.device("meta"):  # no memory for float32 weights: each part is replaced
        model: Any = LanguageModel(config, vocabulary_size)
    if not config.one_hot:
        model.embedding = Int8Embedding(weights)
    model.cell.module = Int8Layers(config, weights)
    model.softmax.replace_linear(lambda name: Int8Linear(weights, f"softmax.{name}"))
    found: LanguageModel = model.eval()
    return found


def pack(weights: Weights, name: str, bias: Tensor) -> Any:
    """A matrix ``(out, in)`` laid out for the int8 product."""
    matrix, scale = weights[name], weights[name + SCALE].double()
    zeros = torch.zeros(len(scale), dtype=torch.long)
    with warnings.catch_warnings():
        # PyTorch plans to remove its quantized tensors. Their product is still its only int8
        # product that is faster than float32 on a CPU for a single row.
        warnings.filterwarnings("ignore", message=".*quantize.*deprecated")
        rows = torch._make_per_channel_quantized_tensor(matrix, scale, zeros, 0)
        return torch.ops.quantized.linear_prepack(rows, bias)


class Int8Embedding(nn.Module):
    """Ids to rows of an int8 matrix, in float32."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.rows, self.scale = weights[EMBEDDING], weights[EMBEDDING + SCALE]

    def forward(self, ids: Tensor) -> Tensor:
        return self.rows[ids] * self.scale[ids].unsqueeze(-1)


class Int8Linear(nn.Module):
    """The linear layer ``name``: ``(..., in)`` to ``(..., out)``. If it has no matrix of its own,
    it is tied to the embedding's."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.bias = nn.Parameter(weights[f"{name}.bias"], requires_grad=False)
        matrix = f"{name}.weight"
        self.packed = pack(weights, matrix if matrix in weights else EMBEDDING, self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        # 7 bits of the input: with 8, the sum of two products can overflow 16 bits
        scores: Tensor = torch.ops.quantized.linear_dynamic(hidden, self.packed, reduce_range=True)
        return scores


class Int8Layers(nn.Module):
    """A stack of recurrent layers, with states of the same shapes as PyTorch's modules."""

    def __init__(self, config: RecurrentConfig, weights: Weights) -> None:
        super().__init__()
        self.cell = _cell(config)
        self.biases, self.matrices = nn.ParameterList(), []
        for layer in range(config.layers):
            input_bias = weights[f"cell.module.bias_ih_l{layer}"]
            zeros = torch.zeros_like(input_bias)  # with model.bias=single
            recurrent_bias = weights.get(f"cell.module.bias_hh_l{layer}", zeros)
            for kind, bias in (("ih", input_bias), ("hh", recurrent_bias)):
                self.biases.append(nn.Parameter(bias, requires_grad=False))
                name = f"cell.module.weight_{kind}_l{layer}"
                self.matrices.append(pack(weights, name, self.biases[-1]))

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """``(batch, time, input)`` to ``(batch, time, hidden)`` and the state after it."""
        parts = state if isinstance(state, tuple) else (state,)
        ends = []
        for layer in range(len(parts[0])):
            place = slice(2 * layer, 2 * layer + 2)
            now = [part[layer] for part in parts]
            outputs = []
            for step in inputs.unbind(dim=1):
                after = self.cell(
                    step,
                    now if len(parts) > 1 else now[0],
                    *self.matrices[place],
                    *self.biases[place],
                )
                now = list(after) if len(parts) > 1 else [after]
                outputs.append(now[0])
            inputs = torch.stack(outputs, dim=1)
            ends.append(now)
        after = tuple(torch.stack(part) for part in zip(*ends, strict=True))
        return inputs, after if isinstance(state, tuple) else after[0]


def _cell(config: RecurrentConfig) -> Any:
    """One step of the cell, with both products in int8."""
    kind = f"rnn_{config.nonlinearity}" if isinstance(config, RNNConfig) else config.name
    return getattr(torch.ops.quantized, f"quantized_{kind}_cell_dynamic")
