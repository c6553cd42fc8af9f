"""The cells in plain PyTorch equal PyTorch's modules in outputs, states and gradients."""

import pytest
import torch

from unroll.app import compose
from unroll.registry import build

REGULARIZED = "training.dropout=0.5 training.dropout_mask=sequence training.weight_dropout=0.5"


DEEP = "model.layer_norm=true model.residual=true"
NARROW = f"{REGULARIZED} model.last_size=4 model.layer_norm=true"
WIDE = "model.last_size=9"
GATED = f"{REGULARIZED} {DEEP} model.mogrifier_rounds=5 model.mogrifier_rank=3"
NARROW_GATED = f"{NARROW} model.mogrifier_rounds=2"
MORE = ["", REGULARIZED, DEEP, NARROW, WIDE, GATED, NARROW_GATED]


@pytest.mark.parametrize("more", MORE)  # both draw equal masks
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("ends", ["", "model.bidirectional=true"])
@pytest.mark.parametrize("bias", ["double", "single"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "rnn model.nonlinearity=relu"])
def test_a_scratch_cell_equals_the_librarys(
    cell: str, bias: str, ends: str, layers: int, more: str
) -> None:
    words = [f"model.bias={bias}", "training.dropout=0"]
    words += more.split() if layers > 1 else []
    words += [f"model={cell.split()[0]}", *cell.split()[1:], "model.hidden_size=7"]
    words += [f"model.layers={layers}", "data/batching=windows", "evaluation.protocol=window"]
    words += [ends] if ends else []
    torch.manual_seed(0)
    config = compose([*words, "model.implementation=scratch"]).model
    scratch = build("cell/scratch", config, 5)
    library = build("cell/library", config, 5)
    library.module.load_state_dict(scratch.module.state_dict())
    # a gated state may grow from step to step, and with it the rounding of float32
    dtype = torch.float64 if "mogrifier" in more else torch.float32
    found = []
    for built in (scratch.to(dtype), library.to(dtype)):
        inputs = torch.linspace(-2, 2, 3 * 9 * 5, dtype=dtype).reshape(3, 9, 5).requires_grad_()
        state = built.initial_state(3)
        parts = state if isinstance(state, tuple) else (state,)
        torch.manual_seed(1)
        parts = tuple(torch.randn_like(part).requires_grad_() for part in parts)
        hidden, after = built(inputs, parts if isinstance(state, tuple) else parts[0])
        afters = after if isinstance(after, tuple) else (after,)
        (hidden.square().sum() + sum(part.sum() for part in afters)).backward()
        gradients = [inputs.grad, *(part.grad for part in parts)]
        gradients += [parameter.grad for _, parameter in sorted(built.module.named_parameters())]
        assert None not in gradients
        found.append([hidden, *afters, *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_forget_gate_bias_and_orthogonal_start_hold_for_both() -> None:
    for implementation in ("scratch", "library"):
        words = ["model.forget_gate_bias=1", "model.initialization=orthogonal"]
        config = compose([*words, "model.hidden_size=6", "model.layers=2"]).model
        cell = build(f"cell/{implementation}", config, 4)
        for layer in range(2):
            both = getattr(cell.module, f"bias_ih_l{layer}") + getattr(
                cell.module, f"bias_hh_l{layer}"
            )
            torch.testing.assert_close(both[6:12], torch.ones(6))
            gate = getattr(cell.module, f"weight_hh_l{layer}")[:6]
            torch.testing.assert_close(gate @ gate.T, torch.eye(6), rtol=0, atol=1e-5)
