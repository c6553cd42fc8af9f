"""A causal Transformer (Vaswani et al. 2017) that reads with a state, as the cells do.

Each layer attends to the last ``context`` tokens, the current one included. The state is what the
layers keep of the ``context - 1`` tokens before: keys and values. Only the distance between two
tokens counts (rotary positions, Su et al. 2024), so a text of any length can be read, and it makes
no difference in how many pieces it is read.

    keys      1 2 3 4 5 6        context 3: the query at 5 sees 3, 4 and 5; the state after it
    query             5          is 4 and 5
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.models.config import TransformerConfig
from unroll.models.dropout import Dropout
from unroll.models.recurrent import Layers

State = tuple[Tensor, Tensor]
"""Keys and values of the tokens that are kept, ``(layers, batch, kept, 2 * width)``, not yet turned
by their positions; and which of them were read, bool ``(1, batch, kept)``: where rows of unequal
length are joined, the shorter ones begin with places that were not."""

LONGEST_WAVE = 10_000
"""The slowest pair of entries turns by 1 / LONGEST_WAVE a token (Vaswani et al. 2017, 3.5)."""
DEVIATION, OF_WIDTH = 0.02, 768
"""Standard deviation of weights at the start, and the width that it is of (Radford et al. 2019)."""


class Transformer(Layers):
    """Layers of attention and feed-forward network, each with layer normalisation before it
    (Radford et al. 2019): ``(batch, time, input)`` to ``(batch, time, width)``."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: TransformerConfig, input_size: int) -> None:
        super().__init__()
        self.config, self.width = config, config.hidden_size
        self.projection: nn.Linear | None = None
        if config.one_hot or input_size != self.width:
            self.projection = nn.Linear(input_size, self.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(self.width)
        pairs = self.width // config.heads // 2
        turns = LONGEST_WAVE ** -(torch.arange(pairs) / pairs)
        angles = torch.arange(2 * config.context)[:, None] * turns
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def initialize(self, model: nn.Module, tied: nn.Parameter | None) -> None:
        """Weights as in GPT-2: N(0, 0.02^2) at its width of 768, else as one over the root of the
        width, as products are then as large as there; biases 0, and what is added to the residual
        stream divided by the root of how often something is added (Radford et al. 2019, 2.3)."""
        deviation = DEVIATION * (OF_WIDTH / self.width) ** 0.5
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                added = name.endswith("_out.weight")
                scale = (2 * self.config.layers) ** -0.5 if added else 1.0
                nn.init.normal_(parameter, std=deviation * scale)
            elif "norm" not in name:
                nn.init.zeros_(parameter)

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """At most ``context`` tokens are read at once, so that memory and time grow with the
        length of the text, and not with its square."""
        vectors = inputs if self.projection is None else self.projection(inputs).float()
        pieces = []
        for piece in torch.split(vectors, self.config.context, dim=1):
            hidden, state = self._read(piece, state)
            pieces.append(hidden)
        return torch.cat(pieces, dim=1), state

    def _read(self, hidden: Tensor, state: State) -> tuple[Tensor, State]:
        past, seen = state
        seen = torch.cat([seen, seen.new_ones(1, *hidden.shape[:2])], dim=2)
        length = seen.shape[2]
        mask = self._mask(seen[0], hidden.shape[1])
        first = max(0, length - (self.config.context - 1))
        kept = []
        for block, before in zip(self.blocks, past, strict=True):
            hidden, read = block(hidden, before, mask, self.cosines, self.sines)
            kept.append(read[:, first:])
        return self.norm(hidden), (torch.stack(kept), seen[:, :, first:])

    def _mask(self, seen: Tensor, steps: int) -> Tensor | None:
        """Which tokens the last ``steps`` of those ``seen (batch, length)`` may attend to,
        ``(batch, 1, steps, length)``; None: every one before them."""
        length = seen.shape[1]
        if length == steps:
            return None
        places = torch.arange(length, device=seen.device)
        distance = places[-steps:, None] - places
        near = (distance >= 0) & (distance < self.config.context)
        return (near & seen[:, None]).unsqueeze(1)

    def initial_state(self, batch: int) -> State:
        """Nothing read, for ``batch`` rows."""
        weight = self.norm.weight
        past = weight.new_zeros(self.config.layers, batch, 0, 2 * self.width)
        return past, weight.new_zeros(1, batch, 0, dtype=torch.bool)

    def state_parts(self, state: State) -> tuple[Tensor, ...]:
        """The keys and values."""
        return state[:1]

    def join(self, states: Sequence[State]) -> State:
        """The state of the rows of all these states, one state after the other; places that were
        not read stand before the shorter ones."""
        longest = max(seen.shape[2] for _, seen in states)
        missing = [longest - seen.shape[2] for _, seen in states]
        parts = list(zip(states, missing, strict=True))
        past = torch.cat([F.pad(past, (0, 0, size, 0)) for (past, _), size in parts], dim=1)
        seen = torch.cat([F.pad(seen, (size, 0)) for (_, seen), size in parts], dim=1)
        return past, seen


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + feedforward(norm(x)); x is float32."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, config.feedforward_width)
        self.feedforward_out = nn.Linear(config.feedforward_width, width)
        self.dropout = Dropout(config.dropout, 1 if config.one_mask else None)

    def forward(
        self, hidden: Tensor, past: Tensor, mask: Tensor | None, cosines: Tensor, sines: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``hidden (batch, time, width)`` after the layer, and the keys and values of all tokens,
        ``(batch, past + time, 2 * width)``."""
        width, steps = hidden.shape[2], hidden.shape[1]
        vectors = self.attention_in(self.attention_norm(hidden)).float()
        queries, new = vectors.split([width, 2 * width], dim=2)
        read = torch.cat([past, new], dim=1)
        keys, values = map(self._split, read.chunk(2, dim=2))
        first, length = past.shape[1], read.shape[1]
        queries = _turned(self._split(queries), cosines[first:length], sines[first:length])
        keys = _turned(keys, cosines[:length], sines[:length])
        # on a CPU the backward pass of attention takes four times as long in bfloat16 as in float32
        device = hidden.device.type
        with torch.autocast(device, enabled=device != "cpu" and torch.is_autocast_enabled(device)):
            found = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, is_causal=mask is None and steps > 1
            )
        hidden = hidden + self.dropout(self.attention_out(found.transpose(1, 2).flatten(2)))
        inner = F.gelu(self.feedforward_in(self.feedforward_norm(hidden)))
        return hidden + self.dropout(self.feedforward_out(inner)), read

    def _split(self, vectors: Tensor) -> Tensor:
        """``(batch, time, width)`` to ``(batch, heads, time, width / heads)``."""
        return vectors.view(*vectors.shape[:2], self.heads, -1).transpose(1, 2)


def _turned(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """``vectors (..., time, entries)`` with the pair of entries i and i + entries / 2 turned by the
    angle of its position, so that a product of two depends on the distance between them."""
    one, other = vectors.chunk(2, dim=-1)
    return torch.cat([one * cosines - other * sines, other * cosines + one * sines], dim=-1)
