"""The cost of a model on a small device."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from unroll.errors import Refused
from unroll.generation.footprint import PRECISIONS, Footprint, export, load, measure, milliseconds
from unroll.models.language_model import LanguageModel


@pytest.fixture
def model(composed):
    def model_(name: str, vocabulary: int, **changes) -> LanguageModel:
        torch.manual_seed(3)
        return LanguageModel(replace(composed(f"model={name}").model, **changes), vocabulary).eval()

    return model_


@pytest.mark.parametrize(
    "changes", [{}, {"tie_weights": True}, {"implementation": "scratch"}, {"bias": "single"}]
)
def test_the_float32_file_gives_back_the_same_model(model, tmp_path: Path, changes) -> None:
    made = model("lstm", 50, embedding_size=16, hidden_size=16, **changes)
    export(tmp_path / "file", made, "float32")
    back = load(tmp_path / "file")
    ids = torch.randint(0, 50, (2, 6))
    with torch.inference_mode():
        hidden, _ = made(ids, made.initial_state(2))
        again, _ = back(ids, back.initial_state(2))
        torch.testing.assert_close(again, hidden)
        torch.testing.assert_close(back.softmax.logits(again), made.softmax.logits(hidden))
    assert back.parameter_count == made.parameter_count


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_int8_file_is_little_more_than_a_quarter(model, tmp_path: Path, name, tied) -> None:
    made = model(name, 2000, embedding_size=64, hidden_size=64, tie_weights=tied)
    for precision in PRECISIONS:
        export(tmp_path / precision, made, precision)
    sizes = {precision: (tmp_path / precision).stat().st_size for precision in PRECISIONS}
    assert sizes["float32"] == pytest.approx(4 * made.parameter_count, rel=0.02)
    assert 0.25 < sizes["int8"] / sizes["float32"] < 0.31


def test_the_int8_model_needs_less_memory_in_a_new_process(model, tmp_path: Path) -> None:
    made = model("gru", 30_000, embedding_size=256, hidden_size=256)
    found: dict[str, Footprint] = {}
    for precision in PRECISIONS:
        export(tmp_path / precision, made, precision)
        found[precision] = measure(tmp_path / precision, warm_up=1, tokens=3)
    weights = 4 * made.parameter_count
    assert 0.9 * weights < found["float32"].model_bytes < 1.5 * weights
    assert found["int8"].model_bytes < 0.6 * found["float32"].model_bytes
    for footprint in found.values():
        assert footprint.peak_bytes >= footprint.resident_bytes > footprint.baseline_bytes > 1e7
        assert footprint.milliseconds_per_token > 0
        assert set(asdict(footprint)) >= {"bytes", "resident_bytes"}


def test_the_warm_up_is_not_timed(model, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0, 100, 100, 200, 0, 1, 1, 3, 3, 6])  # two slow tokens, then 1, 2, 3 seconds
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    assert milliseconds(model("rnn", 9), warm_up=2, tokens=3) == 2000


def test_an_unknown_precision_is_refused(model, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="did you mean 'int8'"):
        export(tmp_path / "file", model("rnn", 9), "int4")
