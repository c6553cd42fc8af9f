"""Forecasting a series of numbers: the series, the forecasters, how they learn."""
