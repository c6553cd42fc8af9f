"""A trained language model in int8: its weights and its products, as a phone would hold them.

Every matrix becomes int8, each row with a float32 scale of its own: ``w = scale * int8``, the
largest entry of a row at 127 (embedding, W_ih, W_hh, softmax; a tied matrix once). Biases, states
and everything between the products stay float32. The products of cell and softmax are dynamically
quantised: their input becomes int8 too, at a scale found as it comes, and they add up in integers.
Rows of the embedding are only looked up, and made float32 again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.errors import require
from unroll.models.config import GRUConfig, LSTMConfig, RecurrentConfig, RNNConfig
from unroll.models.language_model import LanguageModel
from unroll.models.recurrent import State

SCALE = ".scale"
"""What the name of a matrix's scales ends with."""
EMBEDDING, SOFTMAX = "embedding.weight", "softmax.linear.weight"

Weights = Mapping[str, Tensor]


def require_quantizable(config: Any) -> None:
    """Raise ``Refused`` where there is no int8 twin of the model.

    Raises:
        Refused: it is not recurrent, or reads in both directions.
    """
    require(
        isinstance(config, RecurrentConfig),
        f"model={config.name} has no matrices to make int8: take a run of rnn, lstm or gru",
    )
    require(
        not config.bidirectional,
        "model.bidirectional=true writes no text as it goes, a state carried from token to token: "
        "take a run with model.bidirectional=false",
    )


def weights_of(model: LanguageModel) -> dict[str, Tensor]:
    """The float32 weights by name, a tied matrix once."""
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if model.config.tie_weights:
        del weights[SOFTMAX]
    return weights


def quantize(weights: Weights) -> dict[str, Tensor]:
    """Each matrix as int8 rows and their scales, symmetric around zero; the rest as it is."""
    found = {}
    for name, tensor in weights.items():
        if tensor.dim() < 2:
            found[name] = tensor
            continue
        scale = tensor.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        found[name] = (tensor / scale[:, None]).round().to(torch.int8)
        found[name + SCALE] = scale
    return found


def quantized(config: RecurrentConfig, vocabulary_size: int, weights: Weights) -> LanguageModel:
    """The model that computes with the int8 weights of ``quantize``, for reading only.

    Whichever implementation it was trained with, the products are PyTorch's int8 ones.

    Raises:
        Refused: there is no int8 twin of such a model.
    """
    require_quantizable(config)
    model = LanguageModel(replace(config, implementation="library"), vocabulary_size=1)
    frame: Any = model  # over one word it weighs little; what is int8 takes its parts' places
    frame.vocabulary_size = vocabulary_size
    frame.embedding = OneHot(vocabulary_size) if config.one_hot else Int8Embedding(weights)
    frame.cell.module = Int8Layers(config, weights)
    frame.softmax.linear = Int8Linear(weights, EMBEDDING if config.tie_weights else SOFTMAX)
    return model.eval()


def packed(weights: Weights, name: str, bias: Tensor) -> Any:
    """A matrix ``(out, in)`` laid out for the int8 product."""
    matrix, scale = weights[name], weights[name + SCALE].double()
    zeros = torch.zeros(len(scale), dtype=torch.long)
    with warnings.catch_warnings():
        # PyTorch means to retire its quantised tensors. Their product is still the only int8
        # one of its own that is faster than float32 on a CPU for a single row.
        warnings.filterwarnings("ignore", message=".*quantize.*deprecated")
        rows = torch._make_per_channel_quantized_tensor(matrix, scale, zeros, 0)
        return torch.ops.quantized.linear_prepack(rows, bias)


class OneHot(nn.Module):
    """Ids to one-hot vectors."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, ids: Tensor) -> Tensor:
        return F.one_hot(ids, self.size).float()


class Int8Embedding(nn.Module):
    """Ids to rows of an int8 matrix, in float32."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.rows, self.scale = weights[EMBEDDING], weights[EMBEDDING + SCALE]

    def forward(self, ids: Tensor) -> Tensor:
        return self.rows[ids] * self.scale[ids].unsqueeze(-1)


class Int8Linear(nn.Module):
    """The softmax's linear layer: ``(..., width)`` to ``(..., vocabulary)``."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.bias = nn.Parameter(weights["softmax.linear.bias"], requires_grad=False)
        self.packed = packed(weights, name, self.bias)
        self.out_features = len(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        # seven bits of the input: with eight, two products may not fit into 16 bits
        scores: Tensor = torch.ops.quantized.linear_dynamic(hidden, self.packed, reduce_range=True)
        return scores


class Int8Layers(nn.Module):
    """Recurrent layers one above the other; takes and gives states as PyTorch's modules do."""

    def __init__(self, config: RecurrentConfig, weights: Weights) -> None:
        super().__init__()
        self.cell = _cell(config)
        self.biases, self.matrices = nn.ParameterList(), []
        for layer in range(config.layers):
            for kind in ("ih", "hh"):
                bias = weights[f"cell.module.bias_{kind}_l{layer}"]
                self.biases.append(nn.Parameter(bias, requires_grad=False))
                name = f"cell.module.weight_{kind}_l{layer}"
                self.matrices.append(packed(weights, name, self.biases[-1]))

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
    """One step of the cell, both of its products in int8."""
    operations = torch.ops.quantized
    if isinstance(config, LSTMConfig):
        return operations.quantized_lstm_cell_dynamic
    if isinstance(config, GRUConfig):
        return operations.quantized_gru_cell_dynamic
    assert isinstance(config, RNNConfig)
    if config.nonlinearity == "tanh":
        return operations.quantized_rnn_tanh_cell_dynamic
    return operations.quantized_rnn_relu_cell_dynamic
