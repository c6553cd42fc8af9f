"""A search for good values of keys with optuna: ``unroll -m hydra/sweeper=optuna``."""
