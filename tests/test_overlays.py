"""The overlays of conf/experiment: each composes, and holds the published setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from unroll.app import compose
from unroll.config import CONF, Config, flat
from unroll.data.vocabulary import SPECIALS
from unroll.models.parameters import layers

OVERLAYS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix(""))
    for path in (CONF / "experiment").rglob("[!_]*.yaml")
)


def overlay(name: str) -> Config:
    corpora = ("lyrics/", "penn_treebank/", "time_machine/", "lab/")
    return compose([f"experiment={name}", *(["data.path=x"] if name.startswith(corpora) else [])])


def values(name: str) -> dict[str, Any]:
    return flat(overlay(name))


PUBLISHED: dict[str, dict[str, Any]] = {
    "lab": {  # seed document 000
        "data.name": "ag_news",
        "data.tokenizer.name": "word",
        "data.tokenizer.lower": True,
        "data.batching.name": "windows",
        "data.batching.length": 100,
        "data.batching.batch_size": 32,
        "data.batching.shuffle": True,
        "model.embedding_size": 128,
        "model.hidden_size": 512,
        "model.layers": 2,
        "optimizer.name": "adam",
        "optimizer.learning_rate": 1e-3,
        "training.epochs": 20,
        "training.clip_norm": None,
        "sampling.prefix_length": 100,
        "sampling.length": 100,
        "sampling.temperature": 0.8,
        "sampling.greedy": False,
        "evaluation.context": 100,
    },
    "001": {
        "data.name": "time_machine",
        "data.cleaning": "lines",
        "data.characters": None,
        "data.tokenizer.name": "character",
        "data.batching.name": "random",
        "data.batching.length": 35,
        "data.batching.batch_size": 32,
        "model.name": "rnn",
        "model.one_hot": False,
        "model.bias": "single",
        "model.hidden_size": 128,
        "model.layers": 1,
        "optimizer.name": "adam",
        "optimizer.learning_rate": 1e-2,
        "training.epochs": None,
        "training.max_steps": 20,
        "tracking.every": 1,
    },
    "002": {
        "data.name": "penn_treebank",
        "data.batching.name": "sequential",
        "data.batching.length": 35,
        "data.batching.batch_size": 32,
        "model.name": "lstm",
        "model.embedding_size": 256,
        "model.hidden_size": 512,
        "model.dropout": 0.3,
        "optimizer.name": "adam",
        "optimizer.learning_rate": 1e-3,
        "training.clip_norm": 5.0,
        "sampling.stop": "<eos>",
    },
    "003": {
        "data.name": "time_machine",
        "data.cleaning": "letters",
        "data.characters": 10000,
        "data.tokenizer.name": "character",
        "data.batching.length": 35,
        "data.batching.batch_size": 32,
        "data.batching.random_offset": True,
        "model.name": "rnn",
        "model.one_hot": True,
        "model.bias": "single",
        "model.hidden_size": 256,
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 1.0,
        "training.clip_norm": 1.0,
        "training.epochs": 500,
        "sampling.prefix": ["time traveller", "traveller"],
        "sampling.greedy": True,
    },
    "004": {
        "data.name": "lyrics",
        "data.characters": 10000,
        "data.tokenizer.name": "character",
        "data.batching.length": 35,
        "data.batching.batch_size": 32,
        "model.name": "rnn",
        "model.one_hot": True,
        "model.bias": "single",
        "model.hidden_size": 256,
        "training.epochs": 250,
        "sampling.prefix": ["分开", "不分开"],
        "sampling.length": 50,
        "sampling.greedy": True,
    },
}
PUBLISHED["Merity et al. 2018"] = {
    "data.name": "penn_treebank",
    "data.batching.name": "sequential",
    "data.batching.length": 70,
    "data.batching.batch_size": 20,
    "data.batching.random_length": True,
    "model.name": "lstm",
    "model.embedding_size": 400,
    "model.hidden_size": 1150,
    "model.last_size": 400,
    "model.layers": 3,
    "model.tie_weights": True,
    "model.output_dropout": 0.4,
    "model.dropout": 0.25,
    "model.embedding_dropout": 0.4,
    "model.word_dropout": 0.1,
    "model.weight_dropout": 0.5,
    "model.dropout_mask": "sequence",
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 30.0,
    "optimizer.weight_decay": 1.2e-6,
    "optimizer.schedule.name": "constant",
    "training.averaging.name": "triggered",
    "training.averaging.patience": 5,
    "training.clip_norm": 0.25,
    "training.activation_regularization": 2.0,
    "training.temporal_activation_regularization": 1.0,
    "training.epochs": 500,
}
PUBLISHED["Melis et al. 2020"] = {
    "data.name": "penn_treebank",
    "data.batching.name": "sequential",
    "data.batching.length": 70,
    "data.batching.batch_size": 64,
    "data.batching.random_length": False,
    "model.name": "lstm",
    "model.embedding_size": 912,
    "model.hidden_size": 912,
    "model.layers": 2,
    "model.tie_weights": True,
    "model.mogrifier_rounds": 5,
    "model.mogrifier_rank": 84,
    "model.residual": True,
    "model.forget_gate_bias": 1.0,
    "model.embedding_dropout": 0.729,
    "model.dropout": 0.291,
    "model.output_dropout": 0.716,
    "model.dropout_mask": "element",
    "optimizer.name": "adam",
    "optimizer.beta1": 0.0,
    "optimizer.beta2": 0.999,
    "optimizer.learning_rate": 2.3e-3,
    "optimizer.weight_decay": pytest.approx(2.52e-4 / 70, rel=1e-2),
    "optimizer.schedule.name": "constant",
    "training.clip_norm": pytest.approx(10 / 70, rel=1e-2),
    "training.epochs": None,
    "training.max_steps": 200 * 1000,
    "training.validate_every": 200,
    "training.averaging.name": "triggered",
    "training.averaging.patience": 50,
}
FROM_SCRATCH = {"model.implementation": "scratch", "model.initialization": "normal"}
LYRICS_SCRATCH = {
    **FROM_SCRATCH,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 100.0,
    "training.clip_norm": 0.01,
}
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"lab/{cell}": ("lab", {"model.name": cell}) for cell in ("rnn", "lstm", "gru")},
    **{f"width/{units}": ("001", {"model.hidden_size": units}) for units in (128, 200, 300)},
    **{f"batch/{rows}": ("001", {"data.batching.batch_size": rows}) for rows in (16, 32, 64)},
    "penn_treebank/lstm": ("002", {}),
    "penn_treebank/awd_lstm": ("Merity et al. 2018", {}),
    "penn_treebank/mogrifier": ("Melis et al. 2020", {}),
    "time_machine/scratch": (
        "003",
        {**FROM_SCRATCH, "data.batching.name": "sequential", "model.hidden_size": 512},
    ),
    "time_machine/random": ("003", {**FROM_SCRATCH, "data.batching.name": "random"}),
    "time_machine/library": (
        "003",
        {"model.implementation": "library", "data.batching.name": "sequential"},
    ),
    "lyrics/random": ("004", {**LYRICS_SCRATCH, "data.batching.name": "random"}),
    "lyrics/sequential": ("004", {**LYRICS_SCRATCH, "data.batching.name": "sequential"}),
    "lyrics/library": (
        "004",
        {
            "model.implementation": "library",
            "data.batching.name": "sequential",
            "optimizer.name": "adam",
            "optimizer.learning_rate": 1e-3,
            "training.clip_norm": None,  # 0.01 in the published code, which never clips
        },
    ),
}
OURS = {
    "recall",
    "penn_treebank/tied",
    *(
        f"study/{text}{model}"
        for text in ("", "news/")
        for model in ("rnn", "lstm", "gru", "transformer")
    ),
}
"""Overlays that no document publishes."""


@pytest.mark.parametrize("name", sorted(OWN))
def test_an_overlay_has_the_values_of_its_document(name: str) -> None:
    document, own = OWN[name]
    found = values(name)
    published = PUBLISHED[document] | own
    assert {key: found[key] for key in published} == published


def test_the_mogrifier_is_as_wide_as_24_million_parameters_allow() -> None:
    model: Any = overlay("penn_treebank/mogrifier").model
    vocabulary = 10_000 + len(SPECIALS) - 1  # Penn Treebank has its own <unk>

    def parameters(units: int) -> int:
        wide = replace(model, hidden_size=units, embedding_size=units)
        return sum(layer.parameters for layer in layers(wide, vocabulary))

    assert parameters(912) <= 24_000_000 < parameters(913)


def test_every_overlay_is_checked_here_or_is_our_own() -> None:
    assert set(OVERLAYS) == set(OWN) | OURS


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_own_overlays_compose(name: str) -> None:
    assert values(name)["task.name"] == "train"


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("lab/rnn", "lab/gru"), "model.name"),
        (("width/128", "width/200", "width/300"), "model.hidden_size"),
        (("batch/16", "batch/32", "batch/64"), "data.batching.batch_size"),
        (("lyrics/random", "lyrics/sequential"), "data.batching.name"),
    ],
)
def test_overlays_of_a_family_differ_in_one_value_only(names: tuple[str, ...], key: str) -> None:
    first, *others = (values(name) for name in names)
    for other in others:
        shared = set(first) & set(other)  # keys that only one option of a group has are left out
        different = {found for found in shared if first[found] != other[found]}
        assert different == {key}


def test_the_smallest_width_and_the_middle_batch_are_the_same_training() -> None:
    assert overlay("width/128") == overlay("batch/32")
