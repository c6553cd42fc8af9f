"""Two processes that train together, against one process with the whole batch.

Starting PyTorch takes seconds, so one pair of processes computes what most tests look at.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unroll import processes, terminal
from unroll.app import command, compose, dispatch, follow
from unroll.data.token_stream import TokenStream
from unroll.errors import BAD_INPUT, Refused
from unroll.evaluation.perplexity import PROTOCOLS, score
from unroll.models.language_model import LanguageModel
from unroll.tracking import journal, ledger
from unroll.training.learner import Silent
from unroll.training.loop import Trainer
from unroll.training.parallel import ManyProcesses, OneProcess

VOCABULARY = 12
SMALL = ("tracking=disabled", "data=lee_news", "device=cpu", "training.dropout=0",
         "model.hidden_size=4", "model.embedding_size=4", "data.batching.length=5",
         "data.batching.batch_size=6", "optimizer/schedule=constant")  # fmt: skip
SGD = ("optimizer=sgd", "optimizer.learning_rate=0.5", "training.epochs=2")
CASES: dict[str, tuple[str, ...]] = {
    **{name: (f"model={name}", *SGD) for name in ("rnn", "lstm", "gru")},
    "random": (*SGD, "data/batching=random"),
    "windows": (*SGD, "data/batching=windows"),  # 105: the last batch has 3
    "a window": (*SGD, "data/batching=windows", "data.batching.batch_size=8"),  # the last one has 1
    "truncated": (*SGD, "training/truncation=random", "training.truncation.every=2",
                  "training.clip_norm=0.1", "training/averaging=ema"),
    "accumulated": (*SGD, "training.accumulation=2", "training.activation_regularization=2",
                    "training.temporal_activation_regularization=1"),
    "adaptive": (*SGD, "model/softmax=adaptive", "model.softmax.cutoffs=[4,11]"),
    "rows": ("optimizer.embedding_rows=touched", "model.tie_weights=false", "training.epochs=2"),
}  # fmt: skip
DROPOUT = ("training.dropout=0.5", *SGD, "training.max_steps=6")


def a_stream() -> TokenStream:
    ids = np.random.default_rng(1).integers(0, VOCABULARY, 130)
    return TokenStream.from_documents(list(ids.reshape(5, 26)))


class Diary(Silent):
    """Callbacks that keep what they are given, and do ``at[step]`` after that step."""

    log_every = 1

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {}
        self.states: dict[int, dict[str, Any]] = {}
        self.at: dict[int, Any] = {}

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            if name != "tokens_per_second":
                self.curves.setdefault(name, []).append(value)
        if "train/loss" in figures and step in self.at:
            self.at.pop(step)()

    def keep_state(self, state: dict[str, Any], step: int) -> None:
        file = io.BytesIO()  # a copy
        torch.save(state, file)
        self.states[step] = torch.load(io.BytesIO(file.getvalue()), weights_only=False)


composed = cache(compose)  # which takes half a second


def trainer(group: OneProcess, *overrides: str) -> Trainer:
    config = composed((*SMALL, *overrides))
    torch.manual_seed(1)
    model = LanguageModel(config.model, VOCABULARY)
    return Trainer.from_config(config, model, a_stream(), Diary(), group)


def weights_of(made: Trainer) -> list[torch.Tensor]:
    return [each.detach().clone() for each in made.averaging.weights().values()]


def trained(group: OneProcess, *overrides: str) -> dict[str, Any]:
    """What a training of these overrides leaves, and its first gradients."""
    made = trainer(group, *overrides)
    step, gradients = made.optimizer.step, []

    def note() -> Any:
        gradients.append([each.grad.to_dense().clone() for each in made.model.parameters()])
        return step()

    made.optimizer.step = note
    made.fit()
    return {
        "curves": made.callbacks.curves,
        "gradients": gradients[0],
        "weights": weights_of(made),
        "tokens": made.outcome.tokens,
    }


def scores(group: OneProcess) -> dict[str, list[float]]:
    """Nats, tokens, hits and unknown tokens by protocol and by number of rows read together."""
    config, found = composed((*SMALL, *CASES["rnn"])), {}
    torch.manual_seed(1)
    model = LanguageModel(config.model, VOCABULARY)
    ids = np.random.default_rng(2).integers(0, VOCABULARY, 4000)
    for protocol in PROTOCOLS:
        stream = a_stream()
        if protocol == "stream":  # long enough for three columns, with their warm-up
            stream = TokenStream.from_documents([ids])
        for rows in (1, 2, 7):
            changed = replace(config.evaluation, protocol=protocol, rows=rows)
            each = score(model, stream, changed, 3, group)
            found[f"{protocol} {rows}"] = [each.nats, each.tokens, each.hits, each.unknown]
    return found


def resumed(group: OneProcess) -> dict[str, Any]:
    """A training with dropout, and one that goes on from its third step."""
    whole = trainer(group, *DROPOUT, "training.checkpoint_every=3")
    whole.fit()
    again = trainer(group, *DROPOUT)
    again.load_state_dict(whole.callbacks.states[3])
    again.fit()
    state = whole.callbacks.states[3]
    return {
        "whole": weights_of(whole),
        "again": weights_of(again),
        "generators": [each["generators"]["torch"] for each in state["processes"]],
        "states": [each["state"] for each in state["processes"]],
    }


def stopped(group: OneProcess, rank: int) -> dict[str, Any]:
    """Steps that were done, and states that were kept, where process 1 alone is interrupted, has
    trained long enough, or finds that a state is due."""

    def of(change: Any, *overrides: str) -> tuple[int, bool, list[int]]:
        made = trainer(group, *SGD, *overrides)
        made.callbacks.at[2] = lambda: change(made) if rank == 1 else None
        outcome = made.fit()
        return outcome.steps, outcome.interrupted, sorted(made.callbacks.states)

    return {
        "interrupted": of(lambda made: os.kill(os.getpid(), signal.SIGINT)),
        "minutes": of(
            lambda made: setattr(made.outcome, "seconds", 1e9), "training.max_minutes=1000"
        ),
        "due": of(lambda made: setattr(made, "_kept_at", -1e9), "training.max_steps=4"),
    }


# A command in two processes

TINY = ("data=text_files", "data.batching.length=10", "data.batching.batch_size=8", "device=cpu",
        "model=lstm", "model.hidden_size=8", "model.embedding_size=8", "threads=1",
        "training/truncation=random", "training.dropout=0.3", "training.validate_every=8",
        "training.checkpoint_every=3", "sampling.length=2", "tracking=disabled",
        "tracking.every=2", "optimizer/schedule=constant")  # fmt: skip
STEPS = 60


def words(home: Path, name: str, *more: str) -> list[str]:
    names = {"data.path": "text.txt", "data.cache": "cache", "tracking.directory": "runs"}
    places = [f"{key}={home / name}" for key, name in names.items()]
    return [*TINY, *places, f"hydra.run.dir={home / name}", *more]


def carried_out(rank: int, *line: str) -> dict[str, Any]:
    """The exit code and the output of a command in one of the processes."""
    terminal.GRACE_SECONDS = 0.0
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        given = list(line)
        code = terminal.silently(lambda: follow(given)) if rank else command(given)
    return {"code": code, "out": out.getvalue(), "errors": errors.getvalue()}


def work(home: Path) -> None:
    """What each of the two processes does; its results go to a file."""
    torch.set_num_threads(1)
    group, rank = ManyProcesses(torch.device("cpu")), processes.rank()
    found: dict[str, Any] = {name: trained(group, *case) for name, case in CASES.items()}
    found |= {"scores": scores(group), "resumed": resumed(group), "stopped": stopped(group, rank)}
    found["dropped"] = trained(group, *DROPOUT)
    group.close()
    half = [f"training.max_steps={STEPS // 2}", "training.epochs=null"]
    found["command"] = carried_out(rank, *words(home, "whole", *half))
    again = ["resume=latest", f"tracking.directory={home}/runs", f"training.max_steps={STEPS}"]
    found["again"] = carried_out(rank, "tracking=disabled", *again)
    other = words(home, "refused", f"model.hidden_size={8 + rank}")
    found["other config"] = carried_out(rank, *other)
    torch.save(found, home / f"found-{rank}.pt")


if __name__ == "__main__":
    work(Path(sys.argv[1]))


@pytest.fixture(scope="module")
def pair(home: Path) -> list[dict[str, Any]]:
    """What the two processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(home)],
            env=os.environ | place | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out
    return [torch.load(home / f"found-{rank}.pt", weights_only=False) for rank in range(2)]


def close(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(first, second, strict=True))


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_gradients_losses_and_weights_are_those_of_one_process_with_the_whole_batch(pair, name):
    one = trained(OneProcess(), *CASES[name])
    assert len(one["curves"]["train/loss"]) >= 4
    for found in (each[name] for each in pair):
        assert close(found["gradients"], one["gradients"])
        assert close(found["weights"], one["weights"])
        assert found["tokens"] == one["tokens"]
        assert found["curves"].keys() == one["curves"].keys()
        for curve, values in one["curves"].items():
            assert found["curves"][curve] == pytest.approx(values, rel=0, abs=1e-5)
    assert equal(pair[0][name]["weights"], pair[1][name]["weights"])


def test_a_score_is_that_of_one_process_in_every_protocol(pair):
    for name, one in scores(OneProcess()).items():
        for found in pair:
            assert found["scores"][name] == pytest.approx(one, rel=1e-6), name


def test_each_process_draws_its_own_masks_of_dropout(pair):
    first, second = (found["resumed"]["generators"] for found in pair)
    assert equal(first, second)
    assert not torch.equal(first[0], first[1])
    one = trained(OneProcess(), *DROPOUT)
    assert not close(pair[0]["dropped"]["weights"], one["weights"])
    assert equal(pair[0]["dropped"]["weights"], pair[1]["dropped"]["weights"])


def test_a_state_has_what_each_process_carries_and_the_training_goes_on_exactly(pair):
    for found in (each["resumed"] for each in pair):
        assert equal(found["again"], found["whole"])
        (first, _), (second, _) = found["states"]  # of the LSTM, hidden and cell
        assert first.shape == second.shape == (1, 3, 4)
        assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("interrupted", (2, True, [2])),
        ("minutes", (2, False, [2])),
        ("due", (4, False, [2, 4])),
    ],
)
def test_what_one_process_decides_all_do_at_the_same_step(pair, reason, expected):
    assert [found["stopped"][reason] for found in pair] == [expected, expected]


def test_the_first_process_alone_prints_and_writes(pair, home):
    first, second = (found["command"] for found in pair)
    assert (first["code"], second["code"]) == (0, 0)
    assert "trained:" in first["out"]
    assert second["out"] == second["errors"] == ""
    assert len(list((home / "runs" / "ledger").glob("*.json"))) == 1
    assert {path.name for path in home.iterdir()} >= {"whole"}
    assert not (home / "refused").exists()
    result = json.loads((home / "whole" / ledger.RESULT).read_text())
    assert result["tokens"] == STEPS * 80


def test_processes_with_other_configs_are_refused_in_one_line(pair):
    first = pair[0]["other config"]
    assert first["code"] == BAD_INPUT
    assert first["errors"].count("\n") == 1
    assert "model.hidden_size: 8 in the first, 9 in process 1" in first["errors"]
    assert pair[1]["other config"]["code"] == BAD_INPUT


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["data.batching.batch_size=9"], "cannot be shared out evenly among 2 processes: set a"),
        (["model=ngram"], "with model=ngram: start it without torchrun"),
        (["task=describe"], "not task=describe"),
    ],
)
def test_what_cannot_be_shared_out_is_refused_in_one_line(home, monkeypatch, capsys, more, line):
    for key, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(sys, "argv", ["unroll"])
    assert command([f"hydra.run.dir={home}/refused", "data=lee_news", *more]) == BAD_INPUT
    errors = capsys.readouterr().err
    assert line in errors
    assert errors.count("\n") == 1
    assert not (home / "refused").exists()


def test_a_multirun_in_several_processes_is_refused(monkeypatch, capsys):
    for key, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    assert command(["-m", "seed=1,2"]) == BAD_INPUT
    assert "torchrun shares one run out" in capsys.readouterr().err


def test_another_number_of_processes_cannot_go_on(pair, home):
    line = [f"resume={home / 'whole'}", f"training.max_steps={2 * STEPS}", "tracking=disabled"]
    with pytest.raises(Refused, match="ran in 2 processes, and this is 1"):
        dispatch(compose(line), home / "unused", line, reuse=False)


def history(directory: Path) -> list[tuple[str, int, float]]:
    return [
        (point.key, point.step, point.value)
        for point in journal.history(directory)
        if not point.key.startswith(("tokens_per_second", "speed/"))
    ]


def test_after_a_kill_the_processes_start_again_and_end_as_if_nothing_had_happened(pair, home):
    """The other run was stopped too: at half of its steps, and then ``resume=latest`` went on."""
    launcher = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "--max-restarts=3", "-m", "unroll",
         *words(home, "killed", f"training.max_steps={STEPS}", "training.epochs=null")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    if not children.exists():
        launcher.kill()
        pytest.skip("needs a system that lists the children of a process")
    deadline = time.monotonic() + 120
    while not list((home / "killed").glob("checkpoints/state-*")):
        assert time.monotonic() < deadline
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.002)
    os.kill(int(children.read_text().split()[-1]), signal.SIGKILL)
    out, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, out
    kinds = [entry["kind"] for entry in journal.entries(home / "killed")]
    assert "resume" in kinds
    assert [found["again"]["code"] for found in pair] == [0, 0], pair[0]["again"]
    for file in (ledger.BEST, ledger.LAST):
        killed, whole = (
            load_file(home / name / ledger.CHECKPOINTS / file) for name in ("killed", "whole")
        )
        assert equal(list(killed.values()), list(whole.values()))
    assert history(home / "killed")[: len(history(home / "whole"))] == history(home / "whole")
