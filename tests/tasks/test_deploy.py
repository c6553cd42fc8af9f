"""What a trained run costs in float32 and in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unroll.app import compose, dispatch
from unroll.data.token_stream import TokenStream
from unroll.errors import Refused
from unroll.evaluation.perplexity import score
from unroll.generation import footprint
from unroll.tasks.deploy import identified, opening
from unroll.tasks.run import Run
from unroll.tasks.trained import load_run

TINY = ("model.hidden_size=8", "model.embedding_size=8", "data.limit=20", "training.max_steps=2")
TINY += ("data=lee_news", "data.batching.batch_size=4", "training.epochs=50", "sampling.length=3")


@pytest.fixture
def do(tmp_path: Path):
    places = ["tracking=disabled", f"tracking.directory={tmp_path}/mlruns", "device=cpu"]
    places += [f"data.cache={tmp_path}/cache"]

    def do_(name: str, *words: str):
        (tmp_path / name).mkdir()
        return dispatch(compose([*places, *words]), tmp_path / name, list(words), reuse=False)

    do_.places, do_.folder = places, tmp_path
    return do_


def test_deploy_weighs_times_and_scores_both_precisions(do, monkeypatch) -> None:
    def here(path: Path, warm_up: int, tokens: int) -> footprint.Footprint:
        return footprint.main([str(path), f"--warm-up={warm_up}", f"--tokens={tokens}"])

    monkeypatch.setattr("unroll.tasks.deploy.measure", here)  # a process starts in seconds
    run_id = do("train", *TINY, "model=lstm")["run_id"]
    result = do("deploy", "task=deploy", f"run={run_id}", "task.tokens=300", "task.timed=3")
    assert (result["run_of"], result["model"]) == (run_id, "lstm")
    single, small = result["precisions"]["float32"], result["precisions"]["int8"]
    assert small["bytes"] < 0.5 * single["bytes"]  # of so narrow a matrix scales take a third
    for name, figures in result["precisions"].items():
        assert figures["bytes"] == (do.folder / "deploy" / f"{name}.safetensors").stat().st_size
        assert figures["model_bytes"] == figures["resident_bytes"] - figures["baseline_bytes"]
        assert figures["milliseconds_per_token"] > 0
        assert figures["tokens"] == 299
    config = compose([*do.places, "precision=float32"])
    trained = load_run(run_id, config, [])
    stream = trained.read(trained.data, f"{do.folder}/cache").streams["test"]
    by_hand = score(trained.model, opening(stream, 300), config.evaluation, 0)
    assert single["perplexity"] == pytest.approx(by_hand.perplexity, rel=1e-5)
    assert small["perplexity"] == pytest.approx(by_hand.perplexity, rel=0.02)
    assert small["perplexity"] != single["perplexity"]


def test_the_best_and_the_last_checkpoint_of_a_run_are_two_deployments(do) -> None:
    words = ("training.validate_every=1", "training.max_steps=3", "tracking.run_name=x")
    constant = ("optimizer.learning_rate=1.0", "optimizer/schedule=constant")
    found = do("train", *TINY, *words, *constant)
    assert found["best_step"] < found["steps"]  # so large a step does not improve the model
    names = ("best", "last", "best")
    prints = []
    for name in names:
        file = do.folder / "train" / "checkpoints" / f"{name}.safetensors"
        trained = load_run(str(file), compose(do.places), [])
        config = compose([*do.places, "task=deploy", f"run={file}"])
        run = Run(identified(config, trained, []), do.folder / name, [])
        prints.append(run.fingerprint)
    assert prints[0] != prints[1]
    assert prints[0] == prints[2]


def test_a_bidirectional_run_is_refused(do) -> None:
    words = ("model.bidirectional=true", "data/batching=windows", "data.batching.length=5")
    run_id = do("train", *TINY, *words, "evaluation.protocol=window")["run_id"]
    with pytest.raises(Refused, match="bidirectional=false"):
        do("deploy", "task=deploy", f"run={run_id}")


def test_an_opening_keeps_whole_documents_and_the_start_of_the_next() -> None:
    documents = [np.arange(3), np.arange(0), np.arange(5), np.arange(4)]
    stream = TokenStream.from_documents(documents, characters=120)
    assert opening(stream, 12) is stream
    for tokens, offsets in ((6, [0, 3, 3, 6]), (8, [0, 3, 3, 8]), (2, [0, 2])):
        cut = opening(stream, tokens)
        assert cut.offsets.tolist() == offsets
        assert cut.tokens.tolist() == stream.tokens[:tokens].tolist()
        assert cut.characters == 10 * tokens
