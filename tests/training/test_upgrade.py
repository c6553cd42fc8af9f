"""Checkpoints of earlier versions: read, scored and sampled as in the version that wrote them.

Of format 3 a run directory is kept, with a saved state of step 80 of its 88. A new format gets a
folder of its own, made by the command in the tag ``overrides`` of this one's journal, in a folder
with the text of the fixture ``text``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unroll.app import compose, dispatch
from unroll.config import restored
from unroll.evaluation.perplexity import score
from unroll.generation.sampler import sample
from unroll.tasks.train import train
from unroll.tasks.trained import Trained, load_run
from unroll.tracking import ledger
from unroll.training import checkpoint
from unroll.training.upgrade import FORMAT, upgrade

KEPT = Path(__file__).parent / "checkpoints"
VERSION_1 = ("lstm_0.1.0", "ngram_0.1.0")
RUN = KEPT / "run_format_3"
TEST_PERPLEXITY = 21.45351075661164  # of lstm_0.1.0, in the result.json of its run
TEST_TOKENS = 179


@pytest.fixture
def text(tmp_path) -> Path:
    """The text that the kept checkpoints were trained on."""
    path = tmp_path / "text.txt"
    path.write_text(
        "\n\n".join(
            f"the cat number {i % 7} sat on the mat and saw dog {i % 5} run home ."
            for i in range(120)
        )
    )
    return path


@pytest.fixture
def opened(tmp_path):
    """A kept checkpoint as ``run=`` reads it, and the config of the task that reads it."""

    def opened_(name: str):
        places = [f"tracking.directory={tmp_path}", f"data.cache={tmp_path}", "device=cpu"]
        places += ["precision=float32"]  # as their runs
        config = compose(["task=evaluate", f"run={KEPT / name}.safetensors", *places])
        return load_run(config.run, config, []), config

    return opened_


def scored(trained: Trained, config, text: Path):
    words = ["data=text_files", f"data.path={text}", "data.batching.length=8"]
    data = compose([*words, "data.batching.batch_size=4"]).data
    encoded = trained.read(data, config.data.cache)
    stream = encoded.streams["test"]
    return score(trained.model, stream, config.evaluation, trained.vocabulary.unknown)


@pytest.mark.parametrize("name", VERSION_1)
def test_a_config_of_version_1_has_the_keys_of_today(name):
    found = checkpoint.read(KEPT / f"{name}.safetensors")
    config = restored(found.config)
    assert config.model.name == name.partition("_")[0]
    assert (config.data.name, config.training.epochs, config.seed) == ("text_files", 5, 1)
    assert config.precision == "float32"
    assert config.sampling.allow_special, "version 1 drew <unk> like any other token"


def test_a_recurrent_model_of_version_1_has_two_bias_vectors_and_a_full_softmax():
    model = restored(checkpoint.read(KEPT / "lstm_0.1.0.safetensors").config).model
    assert (model.bias, model.softmax.name, model.spectral_radius) == ("double", "full", None)


def test_a_key_that_an_old_config_has_keeps_its_value():
    old = checkpoint.read(KEPT / "lstm_0.1.0.safetensors").config
    old["model"]["spectral_radius"] = 0.9
    assert upgrade(old, 1)["model"]["spectral_radius"] == 0.9


def test_an_lstm_of_version_1_has_the_perplexity_that_its_run_reported(opened, text):
    found = scored(*opened("lstm_0.1.0"), text)
    assert found.perplexity == pytest.approx(TEST_PERPLEXITY, rel=1e-6)
    assert found.tokens == TEST_TOKENS


def test_ngrams_of_version_1_score_as_ngrams_counted_today(opened, text, tmp_path):
    trained, config = opened("ngram_0.1.0")
    assert trained.model.config.pseudocount == 1.0, "once called mass"
    words = ["model=ngram", "model.order=3", "model.smoothing=laplace", "data=text_files",
             f"data.path={text}", "tracking=disabled", f"tracking.directory={tmp_path}",
             f"data.cache={tmp_path}", "device=cpu"]  # fmt: skip
    today = compose(words)
    result = train(today.task, today, tmp_path / "run", words, reuse=False)
    found = scored(trained, config, text)
    assert found.perplexity == pytest.approx(result["test"]["perplexity"], rel=1e-6)
    assert found.tokens == result["test"]["tokens"] == TEST_TOKENS


@pytest.mark.parametrize("name", VERSION_1)
def test_a_model_of_version_1_generates_text(opened, name):
    trained, config = opened(name)
    found = sample(
        trained.model, trained.tokenizer, trained.vocabulary, ["the cat"], config.sampling, 8
    )
    assert set(found.samples[0].text.split()) <= set(json.loads(trained.vocabulary.to_json()))
    assert found.samples[0].text


def reported(directory: Path) -> dict[str, dict[str, float]]:
    return json.loads((directory / ledger.RESULT).read_text())


def test_a_gru_of_format_3_has_the_scores_that_its_run_reported(opened, text):
    found = scored(*opened(f"{RUN.name}/{ledger.CHECKPOINTS}/best"), text)
    expected = reported(RUN)["test"]
    assert found.perplexity == pytest.approx(expected["perplexity"], rel=1e-6)
    assert (found.tokens, found.accuracy) == (expected["tokens"], expected["accuracy"])


def test_a_run_of_format_3_goes_on_from_its_saved_state_to_the_end_that_it_had(text, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(RUN, run)
    (run / ledger.RESULT).unlink()  # as after a kill between steps 80 and 88
    config = json.loads((run / ledger.CONFIG).read_text())
    config["data"] |= {"path": str(text), "cache": str(tmp_path / "cache")}
    config["tracking"]["directory"] = str(tmp_path)
    (run / ledger.CONFIG).write_text(json.dumps(config))
    words = [f"resume={run}"]
    result = dispatch(compose(words), tmp_path / "unused", words, reuse=False)
    assert (result["resumed_at"], result["steps"]) == (80, 88)
    expected = reported(RUN)
    for split in ("train", "valid", "test"):
        perplexity = result[split]["perplexity"]
        assert perplexity == pytest.approx(expected[split]["perplexity"], rel=1e-5), split
    ours, theirs = (load_file(each / ledger.CHECKPOINTS / ledger.LAST) for each in (run, RUN))
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("version", range(1, FORMAT))
def test_a_training_of_an_earlier_version_moved_all_rows_and_was_not_compiled(version):
    groups = ("model", "data", "evaluation", "sampling", "tracking", "training")
    old = {group: {} for group in groups} | {"optimizer": {"name": "adam"}}
    found = upgrade(old, version)
    assert found["optimizer"]["embedding_rows"] == "all"
    assert found["training"]["compile"] is False


def test_a_config_of_this_version_is_left_as_it_is():
    config = {"model": {"name": "ngram", "mass": 2.0}}
    assert upgrade(config, FORMAT) == config


def test_upgrading_does_not_change_its_argument():
    groups = ("data", "evaluation", "sampling", "tracking", "optimizer", "training")
    config = {"model": {"name": "ngram", "mass": 2.0}} | {group: {} for group in groups}
    assert upgrade(config, 1)["model"]["pseudocount"] == 2.0
    assert config["model"] == {"name": "ngram", "mass": 2.0}
