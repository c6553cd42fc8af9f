"""Configs of older checkpoints, converted to the keys of this version.

A key that an older version did not have takes the value that means the old behaviour, which is not
always today's default.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

FORMAT = 6
"""Version of the checkpoints that are written. Version 1 (Unroll 0.1.0) had no number."""

Values = dict[str, Any]

RENAMED: dict[str, dict[str, str]] = {
    "evaluation": {"batch_size": "rows"},
    "model": {"mass": "pseudocount"},
}
"""Since version 1: keys by group, the old name and the new one."""

RECURRENT: Values = {
    "bias": "double",
    "softmax": {"name": "full"},
    "spectral_radius": None,
    "dropout_mask": "element",
    "weight_dropout": 0.0,
    "word_dropout": 0.0,
    "last_size": None,
    "layer_norm": False,
    "residual": False,
    "mogrifier_rounds": 0,
    "mogrifier_rank": None,
}
TRACKING: Values = {"run_name": None, "study": None, "label": None}
TRAINING: Values = {
    "compile": False,
    "non_finite": "stop",
    "checkpoint_every": None,
    "checkpoint_minutes": None,
    "checkpoints_kept": 2,
    "min_gain": 0.0,
    "averaging": {"name": "none"},
    "activation_regularization": 0.0,
    "temporal_activation_regularization": 0.0,
    "dropout_mask": "element",
    "weight_dropout": 0.0,
    "word_dropout": 0.0,
}
EVALUATION: Values = {
    "contexts": None,
    "context_tokens": 2000,
    "dynamic": {
        "learning_rate": None,
        "rule": "rms",
        "decay": 0.02,
        "epsilon": 0.002,
        "segment": 5,
    },
    "cache": {"size": None, "theta": 0.3, "weight": 0.1},
    "mixture": [],
    "mixture_weights": None,
}
ADDED: dict[str, dict[str, Values]] = {
    "": {"default": {"precision": "float32", "resume": None}},
    "model": {"rnn": RECURRENT, "lstm": RECURRENT, "gru": RECURRENT},
    "data": {"*": {"shards": 1}},
    "data.batching": {"sequential": {"random_length": False}},
    "optimizer": {"adam": {"embedding_rows": "all"}},
    "training": {"default": TRAINING},
    "evaluation": {"default": EVALUATION},
    "sampling": {"default": {"allow_special": True}},
    "tracking": {"mlflow": TRACKING | {"wait_seconds": 10.0}, "disabled": TRACKING},
}
"""Since version 1: keys by dotted group and by the group's option, with the value of the old
behaviour; the group '' is the config itself, the option '*' any option."""


def upgrade(config: Values, version: int) -> Values:
    """The config of a checkpoint of format ``version``, with the keys of ``FORMAT``.

    Raises:
        KeyError, TypeError, AttributeError: it is not a config.
    """
    config = deepcopy(config)
    if version < FORMAT:  # what a version has already is left as it is
        for group, renamed in RENAMED.items():
            values = config.get(group, {})
            for old, new in renamed.items():
                if old in values:
                    values[new] = values.pop(old)
        for group, options in ADDED.items():
            first, _, nested = group.partition(".")
            values = config[first] if first else config
            values = values.get(nested, {}) if nested else values
            added = options.get("*", {}) | options.get(values.get("name", "default"), {})
            for key, value in added.items():
                values.setdefault(key, deepcopy(value))
    return config
