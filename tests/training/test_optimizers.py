"""Optimizers against their update rules, schedules against closed forms."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unroll.errors import Refused
from unroll.registry import build
from unroll.training.optimizers import eager

START = [1.0, -2.0, 0.5, 3.0]
GRADIENTS = [[0.5, -1.0, 2.0, 0.1], [-0.3, 0.2, 1.0, 4.0], [0.0, 1.0, -1.0, 0.7]]
RATE = 0.1


@pytest.fixture
def stepped(composed) -> Callable[..., Tensor]:
    """The parameters after one step for each of the gradients."""

    def stepped_(name: str, **changes) -> Tensor:
        config = replace(composed(f"optimizer={name}").optimizer, learning_rate=RATE, **changes)
        parameter = nn.Parameter(torch.tensor(START))
        optimizer = build("optimizer", config, [parameter])
        for gradient in GRADIENTS:
            parameter.grad = torch.tensor(gradient)
            optimizer.step()
        return parameter.detach()

    return stepped_


def adam_written_out(decay: float, decoupled: bool, beta1: float, beta2: float) -> list[float]:
    """Algorithm 1 of Kingma and Ba, number by number, with either kind of weight decay."""
    found = []
    for place, value in enumerate(START):
        m = v = 0.0
        for t, gradients in enumerate(GRADIENTS, start=1):
            g = gradients[place]
            if decoupled:
                value -= RATE * decay * value
            else:
                g += decay * value
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            value -= RATE * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + 1e-8)
        found.append(value)
    return found


def sgd_written_out(decay: float, momentum: float) -> list[float]:
    found = []
    for place, value in enumerate(START):
        velocity = 0.0
        for gradients in GRADIENTS:
            velocity = momentum * velocity + gradients[place] + decay * value
            value -= RATE * velocity
        found.append(value)
    return found


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.8)])
def test_adam_and_adamw_take_the_steps_of_their_papers(stepped, decay, betas):
    changes = {"weight_decay": decay, "beta1": betas[0], "beta2": betas[1]}
    for name, decoupled in (("adam", False), ("adamw", True)):
        expected = torch.tensor(adam_written_out(decay, decoupled, *betas))
        assert torch.allclose(stepped(name, **changes), expected, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_takes_the_steps_of_its_update_rule(stepped, decay, momentum):
    found = stepped("sgd", weight_decay=decay, momentum=momentum)
    assert torch.allclose(found, torch.tensor(sgd_written_out(decay, momentum)), atol=1e-6)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_an_eager_optimizer_steps_and_is_restored_as_pytorchs_own(kind) -> None:
    ended = []
    for made in (kind, eager(kind)):
        parameter, state = nn.Parameter(torch.tensor(START)), None
        for gradient in GRADIENTS:
            optimizer = made([parameter], lr=RATE, weight_decay=0.1)
            if state is not None:
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            (parameter * torch.tensor(gradient)).sum().backward()
            optimizer.step()
            state = optimizer.state_dict()
        assert parameter.requires_grad
        ended.append((parameter.tolist(), str(state)))
    assert ended[0] == ended[1]


def test_a_step_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from unroll.app import compose\n"
        "from unroll.registry import build\n"
        "for name in ('adam', 'adamw', 'sgd'):\n"
        "    parameter = torch.nn.Parameter(torch.ones(2))\n"
        "    made = build('optimizer', compose([f'optimizer={name}']).optimizer, [parameter])\n"
        "    made.zero_grad()\n"
        "    parameter.sum().backward()\n"
        "    made.step()\n"
        "    made.load_state_dict(made.state_dict())\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("adam", {"learning_rate": 0.0}),
        ("sgd", {"learning_rate": math.inf}),
        ("adamw", {"weight_decay": -0.1}),
        ("adam", {"beta1": 1.0}),
        ("adamw", {"beta2": -0.1}),
        ("sgd", {"momentum": 1.0}),
    ],
)
def test_an_optimizer_out_of_its_range_is_refused_by_name(composed, name, changes):
    ((key, value),) = changes.items()
    with pytest.raises(Refused, match=rf"optimizer\.{key}={value}"):
        replace(composed(f"optimizer={name}").optimizer, **changes)


# Schedules


@pytest.fixture
def schedule(composed):
    """A schedule, and a function that returns the learning rate."""

    def schedule_(name: str, total: int | None = None, rate: float = RATE, **changes):
        config = replace(composed(f"optimizer/schedule={name}").optimizer.schedule, **changes)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
        made = build("optimizer/schedule", config, optimizer, total)
        return made, lambda: optimizer.param_groups[0]["lr"]

    return schedule_


def test_a_constant_learning_rate_never_changes(schedule):
    made, rate = schedule("constant")
    for _ in range(5):
        made.after_step()
        made.after_epoch()
        made.after_validation(1.0)
    assert rate() == RATE


@pytest.mark.parametrize(
    ("total", "warmup", "final"), [(20, 5, 0.1), (20, 0, 0.0), (7, 1, 0.5), (10, 9, 0.0)]
)
def test_cosine_rises_linearly_then_falls_along_half_a_cosine(schedule, total, warmup, final):
    made, rate = schedule("cosine", total, warmup_steps=warmup, final_fraction=final)
    found = []
    for _ in range(total):
        found.append(rate())
        made.after_step()
    for step, here in enumerate(found):
        if step < warmup:
            expected = RATE * (step + 1) / warmup
        else:
            angle = math.pi * (step - warmup) / (total - warmup)
            expected = RATE * (final + (1 - final) * (1 + math.cos(angle)) / 2)
        assert here == pytest.approx(expected)
    assert max(found) == pytest.approx(RATE)
    assert rate() == pytest.approx(final * RATE), "the end is reached with the last step"


def test_cosine_stays_at_its_last_rate_after_the_last_step(schedule):
    made, rate = schedule("cosine", 5, warmup_steps=2, final_fraction=0.2)
    for _ in range(9):
        made.after_step()
    assert rate() == pytest.approx(0.2 * RATE)


def test_a_warm_up_longer_than_the_training_only_rises(schedule):
    made, rate = schedule("cosine", 3, warmup_steps=10)
    found = []
    for _ in range(3):
        found.append(rate())
        made.after_step()
    assert found == pytest.approx([RATE / 10, 2 * RATE / 10, 3 * RATE / 10])


def test_cosine_without_a_known_end_is_refused(schedule):
    with pytest.raises(Refused, match=r"set training\.epochs or training\.max_steps"):
        schedule("cosine", None)


@pytest.mark.parametrize(("every", "factor"), [(1, 0.5), (3, 0.1), (2, 1.0)])
def test_step_multiplies_every_so_many_epochs(schedule, every, factor):
    made, rate = schedule("step", every=every, factor=factor)
    for epoch in range(8):
        assert rate() == pytest.approx(RATE * factor ** (epoch // every))
        for _ in range(4):
            made.after_step()
            made.after_validation(9.0)
        made.after_epoch()


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_plateau_divides_after_validations_in_a_row_without_a_better_one(schedule, patience):
    losses = [5.0, 4.0, 4.0, 4.5, 3.9, 3.95, 4.0, 4.1, 4.2, 3.0, 3.0, 2.9999, 3.0, 3.1, 3.2]
    made, rate = schedule("plateau", divisor=4.0, patience=patience)
    best, waited, divided = math.inf, 0, 0
    for loss in losses:
        made.after_validation(loss)
        made.after_step()
        made.after_epoch()
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited == patience:
            divided, waited = divided + 1, 0
        assert rate() == pytest.approx(RATE / 4**divided)
    assert divided >= 2


def test_plateau_divides_a_small_rate_too(schedule):
    made, rate = schedule("plateau", rate=1e-8, divisor=4.0, patience=1)
    made.after_validation(1.0)
    made.after_validation(1.0)
    assert rate() == pytest.approx(1e-8 / 4)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cosine", {"warmup_steps": -1}),
        ("cosine", {"final_fraction": 1.5}),
        ("step", {"every": 0}),
        ("step", {"factor": 0.0}),
        ("plateau", {"divisor": 1.0}),
        ("plateau", {"patience": 0}),
    ],
)
def test_a_schedule_out_of_its_range_is_refused_by_name(schedule, name, changes):
    ((key, value),) = changes.items()
    with pytest.raises(Refused, match=rf"optimizer\.schedule\.{key}={value}"):
        schedule(name, 10, **changes)
