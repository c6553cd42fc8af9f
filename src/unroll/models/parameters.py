"""The parameters of a neural model, layer by layer.

With ``i`` inputs and ``h`` hidden units a recurrent layer has ``g h (i + h + b)`` parameters, where
``g`` is 1 for the RNN, 3 for the GRU and 4 for the LSTM, and ``b`` is the number of its bias
vectors: 2 with model.bias=double, 1 with model.bias=single.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch

from unroll.models.config import NeuralConfig
from unroll.models.language_model import LanguageModel

SECOND_BIAS = "bias_hh"
_RECURRENT = re.compile(r".*\.(\w+)_l(\d+)(_reverse)?")
_BLOCK = re.compile(r"cell\.blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Layer:
    """A layer with the shapes of its tensors. A tied matrix is listed in the embedding only."""

    layer: str
    shapes: dict[str, list[int]]

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.shapes.values()))

    @property
    def parameters_with_one_bias(self) -> int:
        """The number of parameters with model.bias=single, as most textbooks count."""
        return self.parameters - math.prod(self.shapes.get(SECOND_BIAS, [0]))


def layers(config: NeuralConfig, vocabulary_size: int) -> list[Layer]:
    """The layers of the model of this config, in the order of the forward pass. No weights are
    allocated, so models larger than the memory can be counted too."""
    with torch.device("meta"):
        model = LanguageModel(config, vocabulary_size)
    found: dict[str, dict[str, list[int]]] = {}
    for name, parameter in model.named_parameters():
        recurrent = _RECURRENT.fullmatch(name)
        if recurrent:
            tensor, layer, backwards = recurrent.groups()
            place = f"{config.name} {int(layer) + 1}" + (" backwards" if backwards else "")
        elif block := _BLOCK.fullmatch(name):
            layer, tensor = block.groups()
            place = f"{config.name} {int(layer) + 1}"
        else:
            place, _, rest = name.removeprefix("cell.").partition(".")
            tensor = rest.removeprefix("linear.")
        found.setdefault(place, {})[tensor] = list(parameter.shape)
    return [Layer(place, shapes) for place, shapes in found.items()]
