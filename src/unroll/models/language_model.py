"""Embedding, recurrence, softmax: a recurrent language model (Mikolov et al. 2010)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unroll.errors import Refused
from unroll.models.config import RecurrentConfig
from unroll.models.dropout import Dropout, dropout
from unroll.models.model import TrainableSoftmax
from unroll.models.precision import Precision
from unroll.models.recurrent import Cell, State
from unroll.registry import build


class LanguageModel(nn.Module):
    """p(next token | tokens before), with the tokens before kept in a state of fixed size.

    Args:
        config: sizes, cell, softmax, initialization.
        vocabulary_size: number of tokens.
        precision: of the products; one of ``unroll.models.config.PRECISIONS``.

    Raises:
        Refused: the precision is unknown, or the model does not fit into memory.
    """

    def __init__(
        self, config: RecurrentConfig, vocabulary_size: int, precision: str = "float32"
    ) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.precision = Precision(precision)
        input_size = vocabulary_size if config.one_hot else config.embedding_size
        try:
            self.embedding = None if config.one_hot else nn.Embedding(vocabulary_size, input_size)
            self.cell: Cell[Any] = build(f"cell/{config.implementation}", config, input_size)
            tied: Any = None
            if self.embedding is not None and config.tie_weights:
                tied = self.embedding.weight
            self.softmax: TrainableSoftmax = build(
                "model/softmax",
                config.softmax,
                self.cell.width,
                vocabulary_size,
                self.precision,
                tied,
            )
        except (RuntimeError, MemoryError, TypeError) as error:  # PyTorch's errors for "too large"
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
            self.cell.set_biases()
            for module in self.cell.modules():
                if isinstance(module, nn.LayerNorm):
                    module.reset_parameters()
        elif tied is not None:  # the embedding's unit variance would make the first logits huge
            nn.init.normal_(tied, std=self.cell.width**-0.5)
        if config.spectral_radius is not None:
            self.cell.set_spectral_radius(config.spectral_radius)
        over = 0 if config.one_mask else None  # of time-major values
        self.embedding_dropout = Dropout(config.embedding_dropout, over)
        self.output_dropout = Dropout(config.output_dropout, over)

    @property
    def bidirectional(self) -> bool:
        """Whether a position sees the tokens after it, so that no state can be carried."""
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
            vectors = F.one_hot(inputs.t(), self.vocabulary_size).to(self.cell.dtype)
        else:
            vectors = self.embedding(inputs.t())
        if self.training and self.config.word_dropout > 0:
            words = vectors.new_ones(self.vocabulary_size, 1)
            vectors = vectors * dropout(words, self.config.word_dropout, True)[inputs.t()]
        # vectors and hidden are time-major in memory, as the cells read and write them
        vectors = self.embedding_dropout(vectors).transpose(0, 1)
        with self.precision.products(inputs.device):
            hidden, state = self.cell(vectors, state)
        return self.output_dropout(hidden.transpose(0, 1)).transpose(0, 1), state

    def initial_state(self, batch: int) -> State:
        """The state before the first token, for ``batch`` rows."""
        return self.cell.initial_state(batch)

    def detach(self, state: State) -> State:
        """The state as a constant: back-propagation through time stops here."""
        return self.cell.detach(state)

    def moved(self, state: State) -> State:
        """The state on the device of the model."""
        return self.cell.map_state(state, lambda part: part.to(self.device))

    def scale_gradient(self, state: State, factors: Tensor) -> State:
        """The same state; in the backward pass its gradient is multiplied by
        ``factors (batch,)``."""
        return self.cell.scale_gradient(state, factors)

    def state_parts(self, state: State) -> tuple[Tensor, ...]:
        """The tensors that the state consists of."""
        return self.cell.state_parts(state)

    def select(self, state: State, rows: Tensor) -> State:
        """The state of these rows."""
        return self.cell.select(state, rows)

    def join(self, states: Sequence[State]) -> State:
        """The state of the rows of all these states, one state after the other."""
        return self.cell.join(states)
