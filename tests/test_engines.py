"""Sweeps under every launcher: the same results, one parent, refusals before the first job."""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import OmegaConf

from unroll import engines
from unroll.app import Job
from unroll.errors import BAD_INPUT, FAILED, TERMINATED, Refused, explain
from unroll.tracking.journal import is_written
from unroll.tracking.multirun import PARENT

TINY = ("data=text_files", "data.batching.length=10", "data.batching.batch_size=8", "device=cpu",
        "model.embedding_size=8", "training.max_steps=5", "sampling.length=3")  # fmt: skip
SIX = ("model=rnn,lstm,gru", "model.hidden_size=8,16", "model.tie_weights=false")


def requires(*packages: str) -> pytest.MarkDecorator:
    absent = [name for name in packages if not find_spec(name)]
    reason = f"needs {', '.join(absent)}: make test-engines installs every extra"
    return pytest.mark.skipif(bool(absent), reason=reason)


RAY = (pytest.mark.engines, requires("ray", "hydra_plugins.hydra_ray_launcher"))
SUBMITIT = (pytest.mark.engines, requires("submitit", "hydra_plugins.hydra_submitit_launcher"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(f"one two three {i % 3} four {i % 7} six ." for i in range(60)))
    return path


def sweep(
    home: Path, text: Path, *words: str, path: str = os.environ["PATH"]
) -> subprocess.CompletedProcess[str]:
    places = [f"tracking.directory={home}/mlruns", f"hydra.sweep.dir={home}/sweep"]
    places += [f"data.path={text}", f"data.cache={text.parent}/cache"]
    return subprocess.run(
        [sys.executable, "-m", "unroll", "-m", *TINY, *places, *words],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": path},
        check=False,
    )


def perplexities(home: Path) -> dict[str, float]:
    """The test perplexity of each job, by its number."""
    found = {}
    for path in (home / "sweep").glob("*/result.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[path.parent.name] = result["test"]["perplexity"]
    return found


@pytest.fixture(scope="module")
def one_after_another(tmp_path_factory: pytest.TempPathFactory, text: Path) -> dict[str, float]:
    """The results of the sweep in one process, which the engines must have too."""
    home = tmp_path_factory.mktemp("basic")
    done = sweep(home, text, *SIX, "tracking=disabled")
    assert done.returncode == 0, done.stdout + done.stderr
    found = perplexities(home)
    assert len(set(found.values())) == 6  # so that no two jobs can be mistaken for each other
    return found


@pytest.mark.parametrize(
    "launcher",
    [
        "joblib",
        pytest.param("submitit_local", marks=SUBMITIT),
        pytest.param("ray", marks=RAY),
    ],
)
def test_a_sweep_has_the_same_six_results_and_one_parent_under_every_launcher(
    launcher: str, one_after_another: dict[str, float], tmp_path: Path, mlruns: Path, text: Path
) -> None:
    done = sweep(tmp_path, text, *SIX, f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert perplexities(tmp_path) == one_after_another
    assert "6 jobs: 6 run" in done.stdout
    from unroll.tracking.store import connect

    runs = connect(mlruns).search_runs(["1"])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert len(children) == 6
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}


@pytest.mark.parametrize(
    ("launcher", "code", "line"),
    [
        ("joblib", 2, "2 jobs: 1 run, 1 failed"),
        pytest.param("submitit_local", 2, "2 jobs: 1 run, 1 failed", marks=SUBMITIT),
        pytest.param("ray", 2, "2 jobs: 1 run, 1 failed", marks=RAY),
    ],
)
def test_a_refused_job_stops_no_other_and_its_code_is_that_of_the_sweep(
    launcher: str, code: int, line: str, tmp_path: Path, text: Path
) -> None:
    absent = text.with_name("absent.txt")
    words = (f"hydra/launcher={launcher}", "tracking=disabled", "model.hidden_size=8")
    done = sweep(tmp_path, text, *words, f"++data.path={text},{absent}")
    assert (done.returncode, line in done.stdout) == (code, True), done.stdout + done.stderr
    assert "absent.txt does not exist" in done.stdout


@pytest.mark.parametrize("launcher", ["joblib", pytest.param("ray", marks=RAY)])
def test_sigterm_ends_a_sweep_as_terminated_and_its_jobs_with_it(
    launcher: str, tmp_path: Path, text: Path
) -> None:
    endless = ("training.max_steps=1000000", "training.epochs=null", "training.checkpoint_every=20")
    places = (f"data.path={text}", f"data.cache={tmp_path}/cache", f"hydra.sweep.dir={tmp_path}")
    words = [f"hydra/launcher={launcher}", "tracking=disabled", "seed=1,2", *places, *endless]
    words += [f"tracking.directory={tmp_path}/mlruns", "model.hidden_size=8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "unroll", "-m", *TINY, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 200
    while len({path.parent for path in tmp_path.glob("*/checkpoints/state-*")}) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.terminate()
    _, err = process.communicate(timeout=100)
    assert process.returncode == TERMINATED, err
    assert "unroll: terminated" in err
    deadline = time.monotonic() + 60
    while any(is_written(tmp_path / job) for job in ("0", "1")):
        assert time.monotonic() < deadline
        time.sleep(0.2)


SLURM = {
    "sbatch": """#!/bin/sh
# stands in for Slurm: keeps the script, and runs the jobs of its array one after another
cp "$1" {folder}/script
last=$(sed -n 's/.*--array=0-\\([0-9]*\\).*/\\1/p' "$1")
for task in $(seq 0 "$last"); do
    SLURM_JOB_ID=$task SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task sh {folder}/script
done > {folder}/log 2>&1 &
echo Submitted batch job 7
""",
    "srun": """#!/bin/sh
shift 5  # --unbuffered --output FILE --error FILE
exec "$@"
""",
}


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A folder with programs that stand in for Slurm's; ``sbatch`` keeps what it was given."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in SLURM.items():
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.engines
@SUBMITIT[1]
def test_slurm_is_asked_for_what_the_config_says_and_its_jobs_have_the_same_results(
    one_after_another: dict[str, float], tmp_path: Path, text: Path, slurm: Path
) -> None:
    asked = ("partition=long", "gpus_per_node=1", "timeout_min=90", "cpus_per_task=4")
    words = [f"hydra.launcher.{word}" for word in asked]
    words += ["hydra/launcher=submitit_slurm", "tracking=disabled"]
    words += ["model=rnn", *SIX[1:]]  # the first two of the six jobs
    done = sweep(tmp_path, text, *words, path=f"{slurm}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert perplexities(tmp_path) == {job: one_after_another[job] for job in ("0", "1")}
    script = (slurm / "script").read_text()
    for line in ("partition=long", "gpus-per-node=1", "time=90", "cpus-per-task=4", "array=0-1"):
        assert f"#SBATCH --{line}" in script


def launcher_config(**given: object) -> object:
    values = {"launcher": given, "sweeper": {"max_batch_size": given.pop("batch", None)}}
    return OmegaConf.create({"hydra": values})


@pytest.mark.parametrize(("batch", "at_a_time", "threads"), [(None, 8, "1"), (2, 2, "4")])
def test_jobs_of_submitit_on_one_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, batch: int | None, at_a_time: int, threads: str
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setenv(engines.THREADS, "")
    monkeypatch.delenv(engines.THREADS)
    config = launcher_config(batch=batch)
    engines.submitit_local(config)  # type: ignore[arg-type]
    assert config.hydra.sweeper.max_batch_size == at_a_time  # type: ignore[attr-defined]
    assert os.environ[engines.THREADS] == threads
    monkeypatch.setenv(engines.THREADS, "3")
    engines.submitit_local(config)  # type: ignore[arg-type]
    assert os.environ[engines.THREADS] == "3"  # what was set stays


@pytest.mark.parametrize(("cores", "threads"), [(4, "4"), (None, "1")])
def test_a_job_of_slurm_has_a_thread_for_each_of_its_cores(
    monkeypatch: pytest.MonkeyPatch, slurm: Path, cores: int | None, threads: str
) -> None:
    monkeypatch.setenv("PATH", str(slurm))
    monkeypatch.setenv(engines.THREADS, "")
    monkeypatch.delenv(engines.THREADS)
    engines.submitit_slurm(launcher_config(cpus_per_task=cores, cpus_per_gpu=None))  # type: ignore[arg-type]
    assert os.environ[engines.THREADS] == threads


def test_slurm_is_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="needs the commands sbatch and srun"):
        engines.submitit_slurm(launcher_config())  # type: ignore[arg-type]


def closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_without_a_ray_cluster_is_refused_at_once(scheme: str) -> None:
    with pytest.raises(Refused, match=r"no Ray cluster answers at .*127.0.0.1:.* start one with"):
        engines.require_answer(f"{scheme}127.0.0.1:{closed_port()}")


@pytest.mark.engines
@RAY[1]
@pytest.mark.parametrize("address", ["127.0.0.1:CLOSED", "auto", "nonsense"])
def test_a_sweep_on_a_ray_cluster_that_is_not_there_is_refused_and_leaves_nothing(
    tmp_path: Path, text: Path, address: str
) -> None:
    address = address.replace("CLOSED", str(closed_port()))
    words = ("hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}", "seed=1,2")
    done = sweep(tmp_path, text, *words)
    assert done.returncode == BAD_INPUT
    assert re.fullmatch(r"unroll: .*Ray.*hydra\.launcher\.ray\.init.*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("ray", "hydra/launcher=ray needs a package that is not installed: pip install"
         " 'unroll[ray]'"),
        ("submitit_local", "pip install 'unroll[slurm]'"),
        ("submitit_slurm", "pip install 'unroll[slurm]'"),
        ("submitit_slrum", "did you mean 'submitit_slurm'? known: basic, joblib, ray"),
        ("joblob", "did you mean 'joblib'?"),
    ],
)  # fmt: skip
def test_a_launcher_that_is_not_there_is_refused_with_what_to_do(name: str, line: str) -> None:
    missing = MissingConfigException("", f"hydra/launcher/{name}", ["basic", "joblib"])
    found, code = explain(missing)
    assert line in str(found)
    assert code == BAD_INPUT


def test_a_job_whose_process_died_ends_the_sweep_in_one_line() -> None:
    line, code = explain(TerminatedWorkerError("A worker process\nwas killed"))
    assert str(line).startswith("joblib failed: A worker process was killed; give the command")
    assert code == FAILED


def test_a_job_takes_its_parent_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT, "the parent")
    sent, alone = pickle.dumps(Job()), b""
    monkeypatch.setenv(PARENT, "of the multirun before")
    assert pickle.loads(sent).failure is None
    assert os.environ[PARENT] == "the parent"
    monkeypatch.delenv(PARENT)
    alone = pickle.dumps(Job())
    monkeypatch.setenv(PARENT, "of the multirun before")
    pickle.loads(alone)
    assert PARENT not in os.environ


@pytest.fixture
def overlays(tmp_path: Path) -> Path:
    """A folder of configs with experiments that choose their launcher."""
    (tmp_path / "experiment").mkdir()
    head = "# @package _global_\ndefaults:\n  - override /model: gru\n"
    head += "  - override /hydra/launcher: joblib\n"
    (tmp_path / "experiment" / "parallel.yaml").write_text(head)
    two = f"{head}hydra: {{launcher: {{n_jobs: 2}}}}\n"
    (tmp_path / "experiment" / "two.yaml").write_text(two)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "launcher", "jobs"),
    [
        (["experiment=parallel"], "joblib", "n_jobs: -1"),
        (["experiment=two"], "joblib", "n_jobs: 2"),
        (["hydra.launcher.n_jobs=1", "experiment=two"], "joblib", "n_jobs: 1"),
        (["hydra/launcher=basic", "experiment=parallel"], "basic", ""),
    ],
)
def test_an_experiment_may_choose_its_launcher_and_the_command_line_decides(
    overlays: Path, words: list[str], launcher: str, jobs: str
) -> None:
    command = [sys.executable, "-m", "unroll", f"--config-dir={overlays}", "--cfg", "hydra"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=100)
    assert f"hydra/launcher: {launcher}\n" in done.stdout, done.stderr
    assert jobs in done.stdout
