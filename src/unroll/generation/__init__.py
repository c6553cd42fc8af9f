"""A model and a prefix to text."""
