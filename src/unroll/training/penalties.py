"""Penalties on the activations of the last layer, added to the loss that is minimised only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unroll.models.language_model import LanguageModel
from unroll.training.config import TrainingConfig


class ActivationPenalty:
    """Activation regularization and temporal activation regularization (Merity et al. 2017):

        alpha * mean((m * h)^2) + beta * mean((h_(t+1) - h_t)^2)

    over the hidden states h of the last layer in a batch, with the mask m of the output dropout.
    As in the authors' code, both are means over all numbers; their paper writes the L2 norm.

    It listens to the model while that trains. Without weights it does nothing.
    """

    def __init__(self, model: LanguageModel, config: TrainingConfig) -> None:
        self.alpha = config.activation_regularization
        self.beta = config.temporal_activation_regularization
        self.pieces: list[tuple[Tensor, Tensor]] = []
        if self.alpha or self.beta:
            model.output_dropout.register_forward_hook(self._listen)

    def _listen(self, module: nn.Module, inputs: Any, dropped: Tensor) -> None:
        if module.training:
            self.pieces.append((inputs[0], dropped))

    def added_to(self, loss: Tensor) -> Tensor:
        """``loss`` with the penalty of what the model has read since the last call."""
        if not self.pieces:
            return loss
        hidden, dropped = (torch.cat(parts) for parts in zip(*self.pieces, strict=True))
        self.pieces = []
        if self.alpha:
            loss = loss + self.alpha * dropped.square().mean()
        if self.beta and len(hidden) > 1:
            loss = loss + self.beta * hidden.diff(dim=0).square().mean()
        return loss
