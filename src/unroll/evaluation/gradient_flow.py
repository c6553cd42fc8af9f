"""How far back a gradient flows: the norm of a late loss's gradient at earlier states.

d loss_T / d s_(T-k) contains the Jacobian of the recurrence k times. Where it shrinks vectors the
gradient vanishes with k; where it stretches them the gradient explodes (Bengio et al. 1994;
Pascanu et al. 2013, section 2).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from unroll.data.token_stream import TokenStream
from unroll.errors import require
from unroll.models.config import require_one_direction
from unroll.models.language_model import LanguageModel


def gradient_flow(
    model: LanguageModel, stream: TokenStream, steps: int, batch_size: int
) -> list[float]:
    """Norms of d loss_T / d s_(T-k) for k = 0 .. ``steps``.

    ``loss_T`` is the cross-entropy, in nats, at the last of ``steps + 1`` tokens that are read
    from the initial state. The norm is over everything that is carried from one step to the next:
    all layers, and in an LSTM both hidden state and memory; at k = 0 it is over the hidden state
    that the softmax reads. The result is the root mean square over ``batch_size`` sequences,
    spread evenly over the stream. Dropout is off.

    Raises:
        Refused: the stream is too short, or the model is bidirectional.
    """
    require_one_direction(model.bidirectional, "evaluation.gradient_steps", steps)
    spare = len(stream) - (steps + 2)
    require(
        spare >= 0,
        f"evaluation.gradient_steps={steps} needs a text of at least {steps + 2} tokens; this one "
        f"has {len(stream)}: set fewer steps",
    )
    starts = np.unique(np.linspace(0, spare, batch_size).astype(np.int64))
    rows = torch.from_numpy(stream.rows(starts, steps + 2)).to(model.device)
    training = model.training
    model.eval()
    with torch.backends.cudnn.flags(enabled=False):  # in eval mode cuDNN has no backward pass
        norms = _norms(model, rows[:, :-1], rows[:, -1])
    model.train(training)
    return norms


def _norms(model: LanguageModel, inputs: Tensor, targets: Tensor) -> list[float]:
    """``gradient_flow`` for ``inputs (batch, steps + 1)`` and ``targets (batch,)``."""
    state, carried = model.initial_state(len(inputs)), []
    hidden = inputs.new_zeros(0)
    for token in torch.split(inputs, 1, dim=1):
        carried.append(model.state_parts(state))
        hidden, state = model(token, state)
    # the first state is the initial one, a constant; for the last one take what the softmax reads
    points = [[hidden], *(list(parts) for parts in reversed(carried[1:]))]
    loss = model.softmax.loss(hidden[:, -1], targets) * len(targets)
    gradients = iter(torch.autograd.grad(loss, [part for parts in points for part in parts]))
    squares = [sum(_sum_of_squares(next(gradients)) for _ in parts) for parts in points]
    return [math.sqrt(square / len(targets)) for square in squares]


def _sum_of_squares(gradient: Tensor) -> float:
    """In float64, since squares of small float32 numbers underflow; by NumPy, since not every
    device has float64 (mps)."""
    values = gradient.float().cpu().numpy().astype(np.float64)
    return float(np.square(values).sum())
