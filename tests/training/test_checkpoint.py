"""A model in one file: what is restored, what is refused, what is never left behind."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from unroll.errors import Refused
from unroll.models.language_model import LanguageModel
from unroll.training import checkpoint

HEADER = {
    "run_id": "0123abcd",
    "config": {"model": {"name": "lstm"}, "seed": 1, "text": '\u5206\u5f00 \u2028 "quoted" \\'},
    "vocabulary": '["<unk>", "na\u00efve", "\U0001f600"]',
    "tokenizer": "{}",
}
IDS = torch.tensor([[1, 4, 4, 6, 0]])


@pytest.fixture(scope="session")
def model(composed):
    def model_(name: str = "lstm", seed: int = 3, **changes) -> LanguageModel:
        torch.manual_seed(seed)
        sizes = {"embedding_size": 4, "hidden_size": 4}
        return LanguageModel(replace(composed(f"model={name}").model, **(sizes | changes)), 7)

    return model_


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "checkpoints" / "best.safetensors"


def kept(path: Path, model: LanguageModel, step: int = 12) -> Path:
    checkpoint.save(path, model, step=step, **HEADER)
    return path


def logits(model: LanguageModel) -> torch.Tensor:
    hidden, _ = model(IDS, model.initial_state(1))
    return model.softmax.logits(hidden)


@pytest.mark.parametrize("changes", [{}, {"tie_weights": True}, {"one_hot": True, "layers": 2}])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_a_model_is_restored_with_its_weights_and_header(model, path, name, changes):
    trained, other = model(name, **changes), model(name, seed=4, **changes)
    assert not torch.equal(logits(other), logits(trained))
    found = checkpoint.read(kept(path, trained))
    found.load(other)
    assert torch.equal(logits(other), logits(trained))
    assert asdict(found) == {"path": path, "step": 12, **HEADER}


def test_tied_weights_are_still_tied_after_loading(model, path):
    other = model(seed=4, tie_weights=True)
    checkpoint.read(kept(path, model(tie_weights=True))).load(other)
    memory = [tensor.data_ptr() for tensor in other.state_dict().values()]
    assert len(set(memory)) == len(memory) - 1
    assert other.parameter_count == model(tie_weights=True).parameter_count


def test_saving_again_replaces_what_was_there_and_leaves_nothing_else(model, path):
    kept(path, model(), step=1)
    second = model(seed=5)
    kept(path, second, step=2)
    found, other = checkpoint.read(path), model(seed=6)
    found.load(other)
    assert found.step == 2
    assert torch.equal(logits(other), logits(second))
    assert list(path.parent.iterdir()) == [path]


def test_saving_does_not_change_the_model(model, path):
    trained = model(tie_weights=True)
    before = [parameter.clone() for parameter in trained.parameters()]
    kept(path, trained)
    assert all(map(torch.equal, trained.parameters(), before))
    assert all(parameter.requires_grad for parameter in trained.parameters())


# What is refused


def refused(path: Path, model: LanguageModel) -> str:
    with pytest.raises(Refused) as error:
        checkpoint.read(path).load(model)
    line = str(error.value)
    assert str(path) in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(model, path, share):
    content = kept(path, model()).read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refused(path, model())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 7, 8, 9, 100, 5000])
def test_random_bytes_are_refused(model, tmp_path, seed, size):
    path = tmp_path / "random"
    generator = torch.Generator().manual_seed(seed)
    path.write_bytes(bytes(torch.randint(256, (size,), generator=generator).tolist()))
    assert "damaged" in refused(path, model())


def test_a_header_above_the_largest_size_is_refused_before_it_is_read(model, tmp_path):
    path = tmp_path / "long"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    assert "its header is invalid" in refused(path, model())


def test_tensors_without_the_header_of_a_checkpoint_are_refused(model, tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file({name: t.clone() for name, t in model().state_dict().items()}, path)
    assert "is not a checkpoint of Unroll" in refused(path, model())


@pytest.mark.parametrize("header", ['{"run_id": "x"}', "not json", "", "[]", "3", "null"])
def test_a_header_without_the_fields_of_a_checkpoint_is_refused(model, tmp_path, header):
    path = tmp_path / "odd.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"unroll": header})
    assert "damaged" in refused(path, model())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("lstm", {"hidden_size": 5}),
        ("gru", {}),
        ("lstm", {"layers": 2}),
        ("lstm", {"one_hot": True}),
    ],
)
def test_weights_of_another_shape_are_refused(model, path, name, changes):
    kept(path, model())
    assert "does not fit the model" in refused(path, model(name, **changes))


def test_a_file_that_does_not_exist_and_a_folder_are_refused(model, tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(Refused, match="does not exist"):
            checkpoint.read(path)


def test_a_checkpoint_of_a_later_format_is_refused(model, path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    kept(path, model())
    monkeypatch.undo()
    line = refused(path, model())
    assert f"has format {checkpoint.FORMAT + 1}" in line
    assert "update Unroll" in line


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 10**6), bits=st.integers(1, 255))
def test_a_flipped_byte_of_the_header_is_refused_or_harmless(model, tmp_path, place, bits):
    content = bytearray(kept(tmp_path / "flipped", model()).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[place % header] ^= bits
    path = tmp_path / "flipped"
    path.write_bytes(content)
    with suppress(Refused):  # and no other error
        checkpoint.read(path).load(model())


# What is never left behind


def test_a_failed_saving_leaves_the_old_checkpoint_and_no_part_of_a_new_one(model, path):
    content = kept(path, model()).read_bytes()
    with pytest.raises(TypeError):
        checkpoint.save(path, model(seed=5), step=2, **(HEADER | {"config": {"x": object()}}))
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_that_cannot_take_its_place_leaves_no_part_behind(model, path):
    path.mkdir(parents=True)
    (path / "in the way").touch()
    with pytest.raises(OSError, match="directory"):
        kept(path, model())
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_checkpoint_and_no_part_of_a_new_one(model, path):
    pytest.importorskip("resource", reason="needs a limit on the size of files")
    content = kept(path, model()).read_bytes()
    code = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from unroll.training import checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "model = torch.nn.Linear(200, 200)\n"
        "checkpoint.save(Path(sys.argv[1]), model, run_id='', config={}, vocabulary='',\n"
        "                tokenizer='', step=2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 1, "the saving failed, and was not killed"
    assert "File too large" in done.stderr
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
