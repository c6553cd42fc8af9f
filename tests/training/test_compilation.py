"""Compiled trainings: equal to plain ones, refused where they make no sense."""

from __future__ import annotations

import functools

import pytest
import torch

from unroll.errors import Refused
from unroll.training import compilation, gradients


@pytest.mark.parametrize("least", [1, 1000])
def test_a_compiled_training_equals_a_plain_one(training, monkeypatch, least):
    """With the compiler's front end, which needs no C++ compiler."""
    monkeypatch.setattr(gradients, "SPARSE_FROM", least)
    front = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", front)
    monkeypatch.setattr(compilation, "LEAST_STEPS", 2)
    plain, made = training(max_steps=3), training(max_steps=3, compile=True)
    assert made.trainer.reader is not made.model
    plain.trainer.fit()
    made.trainer.fit()
    losses = [value for _, value in plain.curve("train/loss")]
    assert [value for _, value in made.curve("train/loss")] == pytest.approx(losses, rel=1e-5)
    assert made.model.state_dict().keys() == plain.model.state_dict().keys()


def test_a_short_training_is_not_compiled(training):
    with pytest.raises(Refused, match=r"has 14 steps: set training\.compile=false"):
        training(compile=True)


def test_a_machine_without_a_working_compiler_refuses_in_one_line(training, monkeypatch):
    def no_compiler(model):
        raise RuntimeError("No working C++ compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(Refused) as refused:
        training(compile=True, max_steps=None, epochs=1000)
    assert str(refused.value) == (
        "training.compile=true: PyTorch's compiler does not work here (No working C++ compiler "
        "found): install a C++ compiler such as g++ or set CXX to one, or set "
        "training.compile=false"
    )
