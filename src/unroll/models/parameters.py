"""What a recurrent model is made of: its parameters, layer by layer.

With ``i`` inputs and ``h`` hidden units a layer holds ``g h (i + h + 2)`` numbers, where ``g`` is
1 for the RNN, 3 for the GRU and 4 for the LSTM, since PyTorch keeps two bias vectors a layer.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch

from unroll.models.config import RecurrentConfig
from unroll.models.language_model import LanguageModel

SECOND_BIAS = "bias_hh"
_RECURRENT = re.compile(r".*\.(\w+)_l(\d+)(_reverse)?")


@dataclass(frozen=True)
class Layer:
    """A layer with the shapes of its tensors. A tied matrix stands with the embedding alone."""

    layer: str
    shapes: dict[str, list[int]]

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.shapes.values()))

    @property
    def parameters_with_one_bias(self) -> int:
        """The count of a textbook that gives a recurrent layer one bias vector. For RNN and LSTM
        the second one adds nothing; the GRU's stands inside the reset gate's product."""
        return self.parameters - math.prod(self.shapes.get(SECOND_BIAS, [0]))


def layers(config: RecurrentConfig, vocabulary_size: int) -> list[Layer]:
    """The layers of the model of this config, in the order in which they are passed. No weight
    is made for it, so that a model too large for the memory can be counted too."""
    with torch.device("meta"):
        model = LanguageModel(config, vocabulary_size)
    found: dict[str, dict[str, list[int]]] = {}
    for name, parameter in model.named_parameters():
        recurrent = _RECURRENT.fullmatch(name)
        if recurrent:
            tensor, layer, backwards = recurrent.groups()
            place = f"{config.name} {int(layer) + 1}" + (" backwards" if backwards else "")
        else:
            place, _, rest = name.partition(".")
            tensor = rest.rpartition(".")[2]
        found.setdefault(place, {})[tensor] = list(parameter.shape)
    return [Layer(place, shapes) for place, shapes in found.items()]
