"""Unroll: train, score and sample recurrent language models, one line an experiment."""

__version__ = "0.1.0"
