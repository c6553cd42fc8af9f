"""Forecasting a series of numbers: the series, the forecasters, their training."""
