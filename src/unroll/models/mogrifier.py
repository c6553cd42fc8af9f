"""Rounds in which the input of a layer and its state gate each other before each step of the cell
(Melis et al. 2020, section 2).

With x^-1 = x_t and h^0 = h_(t-1),

    x^i = 2 sigmoid(Q^i h^(i-1)) * x^(i-2)    for odd i,
    h^i = 2 sigmoid(R^i x^(i-1)) * h^(i-2)    for even i,

and the cell reads the last x and the last h in place of x_t and h_(t-1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.models.config import RecurrentConfig
from unroll.models.steps import step_of
from unroll.models.time_loops import SMALL, products_dtype

Product = Callable[[Tensor], Tensor]
"""Rows ``(batch, n)`` to rows ``(batch, m)``."""


def mogrified(
    inputs: Tensor, hidden: Tensor, rounds: Sequence[Sequence[Product]]
) -> tuple[Tensor, Tensor]:
    """The last x ``(batch, input)`` and the last h ``(batch, hidden)``. The products of a round,
    one after the other, are that with its matrix."""
    older, newer = inputs, hidden  # x and h change places in every round
    for products in rounds:
        gate = newer
        for product in products:
            gate = product(gate)
        older, newer = newer, 2 * torch.sigmoid(gate) * older
    return (newer, older) if len(rounds) % 2 else (older, newer)


def factors(config: RecurrentConfig) -> list[list[str]]:
    """For each round the name of its matrix, or of the two that make it, the one that multiplies
    first in front."""
    names = [f"{'rq'[number % 2]}{number}" for number in range(1, config.mogrifier_rounds + 1)]
    ends = ("",) if config.mogrifier_rank is None else ("_right", "_left")
    return [[name + end for end in ends] for name in names]


class Mogrifier(nn.Module):
    """The matrices of the rounds of all layers: ``weight_q1_l0`` is Q^1 of the first layer.

    With a rank k, Q ``(input, hidden)`` is the product of ``left (input, k)`` and ``right (k,
    hidden)``, and R likewise. They start as in the authors' code: normal, with the variance 1 / n
    of a matrix, or of the product of two, that reads n numbers. As in the paper there is no bias;
    the code has one that starts at 0.
    """

    def __init__(self, config: RecurrentConfig, input_size: int) -> None:
        super().__init__()
        self.config, rank = config, config.mogrifier_rank
        sides = ("", "_reverse") if config.bidirectional else ("",)
        below = [input_size, *(size * len(sides) for size in config.sizes[:-1])]
        self.ends = [f"_l{layer}{side}" for layer in range(config.layers) for side in sides]
        for place, end in enumerate(self.ends):
            sizes = below[place // len(sides)], config.sizes[place // len(sides)]
            for number, names in enumerate(factors(config)):
                out, read = sizes[number % 2], sizes[1 - number % 2]
                shapes = [(out, read)] if rank is None else [(rank, read), (out, rank)]
                deviation = read**-0.5 if rank is None else (read * rank) ** -0.25
                for name, shape in zip(names, shapes, strict=True):
                    start = nn.Parameter(torch.randn(shape) * deviation)
                    self.register_parameter(f"weight_{name}{end}", start)

    def rounds(self, number: int, product: Callable[[Tensor], Product]) -> list[list[Product]]:
        """The products of each round of layer and direction ``number``, made from the matrices."""
        return [
            [product(getattr(self, f"weight_{name}{self.ends[number]}")) for name in names]
            for names in factors(self.config)
        ]

    def layer(
        self,
        number: int,
        inputs: Tensor,
        state: tuple[Tensor, ...],
        weights: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Layer and direction ``number``, as ``TimeMajor.layer``."""
        dtype, step = products_dtype(inputs), step_of(self.config)

        def product(matrix: Tensor) -> Product:
            if dtype == matrix.dtype or matrix.numel() <= SMALL:
                return lambda rows: F.linear(rows, matrix)
            rounded = matrix.to(dtype)
            return lambda rows: F.linear(rows.to(dtype), rounded).to(rows.dtype)

        w_ih, w_hh, b_ih, b_hh = weights
        now, outputs = list(state), []
        with torch.autocast(inputs.device.type, enabled=False):
            rounds, read, carry = self.rounds(number, product), product(w_ih), product(w_hh)
            for given in inputs.unbind(0):
                x, h = mogrified(given, now[0], rounds)
                now = step(read(x) + b_ih, carry(h) + b_hh, [h, *now[1:]])
                outputs.append(now[0])
        return torch.stack(outputs), *now
