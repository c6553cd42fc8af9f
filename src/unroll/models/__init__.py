"""Embedding, recurrence, softmax: the language models."""
