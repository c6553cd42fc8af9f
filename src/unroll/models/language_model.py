"""Embedding, recurrence, softmax: a recurrent language model (Mikolov et al. 2010)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.errors import Refused
from unroll.models.config import RecurrentConfig
from unroll.models.recurrent import Cell, State
from unroll.models.softmax import FullSoftmax
from unroll.registry import build


class LanguageModel(nn.Module):
    """p(next token | tokens before), the tokens before held in a state of fixed size."""

    def __init__(self, config: RecurrentConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        input_size = vocabulary_size if config.one_hot else config.embedding_size
        try:
            self.embedding = None if config.one_hot else nn.Embedding(vocabulary_size, input_size)
            self.cell: Cell[Any] = build(f"cell/{config.implementation}", config, input_size)
            tied: Any = None
            if self.embedding is not None and config.tie_weights:
                tied = self.embedding.weight
            self.softmax = FullSoftmax(self.cell.width, vocabulary_size, tied)
        except (
            RuntimeError,
            MemoryError,
            TypeError,
        ) as error:  # the allocator's only word for "too large"
            raise Refused(
                f"a model of model.hidden_size={config.hidden_size}, model.embedding_size="
                f"{config.embedding_size}, model.layers={config.layers} over {vocabulary_size:,} "
                "tokens does not fit into memory: take smaller sizes"
            ) from error
        if config.initialization == "normal":
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.01)
                else:
                    nn.init.zeros_(parameter)
        elif tied is not None:  # the embedding's unit variance would make the first logits huge
            nn.init.normal_(tied, std=self.cell.width**-0.5)
        if config.spectral_radius is not None:
            self.cell.set_spectral_radius(config.spectral_radius)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.output_dropout = nn.Dropout(config.output_dropout)

    @property
    def bidirectional(self) -> bool:
        """Whether a position sees tokens after it, so that no state can be carried."""
        return self.config.bidirectional

    @property
    def parameter_count(self) -> int:
        """Numbers that training adjusts; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Ids ``(batch, time)`` and a state to hidden ``(batch, time, width)`` and the next."""
        if self.embedding is None:
            vectors = F.one_hot(inputs, self.vocabulary_size).to(self.softmax.linear.weight.dtype)
        else:
            vectors = self.embedding(inputs)
        hidden, state = self.cell(self.embedding_dropout(vectors), state)
        return self.output_dropout(hidden), state

    def initial_state(self, batch: int) -> State:
        """The state before the first token, for ``batch`` rows."""
        return self.cell.initial_state(batch)

    def detach(self, state: State) -> State:
        """The state as a constant, where back-propagation through time is cut."""
        return self.cell.detach(state)

    def scale_gradient(self, state: State, factors: Tensor) -> State:
        """The same state, its gradient multiplied by ``factors (batch,)`` on the way back."""
        return self.cell.scale_gradient(state, factors)

    def state_parts(self, state: State) -> tuple[Tensor, ...]:
        """The tensors that the state is made of."""
        return self.cell.state_parts(state)

    def select(self, state: State, rows: Tensor) -> State:
        """The state of these rows."""
        return self.cell.select(state, rows)
