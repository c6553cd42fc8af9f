"""Config of forecasters."""

from __future__ import annotations

from dataclasses import dataclass

from unroll.registry import register


@register("forecaster", "mlp", builds="unroll.forecasting.forecasters:MLP")
@register("forecaster", "rnn", builds="unroll.forecasting.forecasters:rnn")
@register("forecaster", "lstm", builds="unroll.forecasting.forecasters:lstm")
@register("forecaster", "gru", builds="unroll.forecasting.forecasters:gru")
@dataclass(frozen=True)
class ForecasterConfig:
    name: str
    tau: int
    """Number of values that a forecast is made from."""
    hidden_size: int
