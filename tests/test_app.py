"""The command line: what it refuses, what it keeps, which configs it composes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unroll.app import compose, dispatch
from unroll.errors import Refused
from unroll.folders import CONF
from unroll.registry import names, schema

ROOT = Path(__file__).parents[1]
TINY = ("model.hidden_size=8", "model.embedding_size=8", "sampling.length=3", "data.limit=20")
TINY += ("data=lee_news", "data.batching.batch_size=8", "training.epochs=50")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "unroll", *words]


def unroll(home: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command with everything it keeps under ``home``."""
    places = [f"tracking.directory={home}/mlruns", f"data.cache={home}/cache"]
    places += [f"hydra.run.dir={home}/run", f"hydra.sweep.dir={home}/sweep"]
    found = subprocess.run(
        command(*words, *places), capture_output=True, text=True, timeout=300, cwd=home
    )
    assert found.returncode == code, found.stdout + found.stderr
    return found


def refusal(home: Path, *words: str) -> str:
    """The one line of a refused command, which must leave nothing behind."""
    found = unroll(home, *words, code=2)
    assert "Traceback" not in found.stderr
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1, found.stderr
    assert not (home / "run").exists()
    assert not (home / "mlruns").exists()
    return lines[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one small finished run."""
    home = tmp_path_factory.mktemp("trained")
    unroll(home, *TINY, "training.max_steps=12", "tracking.every=3", "tracking.run_name=first")
    (home / "run").rename(home / "first")
    return home


REFUSED = {
    "model=ltsm": "unknown model 'ltsm': did you mean 'lstm'?",
    "optimizer.schedule=3": "unknown optimizer/schedule '3': known: constant",
    "model.hiden_size=3": "unknown key in model 'hiden_size': did you mean 'hidden_size'?",
    "modle=lstm": "did you mean 'model'?",
    "+model.foo=1": "unknown key in model 'foo'",
    "optimizer/shedule=cosine": "did you mean 'optimizer/schedule'?",
    "model.hidden_size=wide": "model.hidden_size=wide: expected an integer",
    "model.hidden_size=0": "model.hidden_size=0: ",
    "training.dropout=1.5": "training.dropout=1.5",
    "optimizer.learning_rate=-1": "optimizer.learning_rate=-1",
    "optimizer.learning_rate=nan": "optimizer.learning_rate=nan",
    "training.clip_norm=0": "training.clip_norm=0",
    "training.truncation=35": "write training.truncation=fixed training.truncation.steps=35",
    "training.truncation=fxed": "did you mean 'fixed'?",
    "data.valid_fraction=1": "data.valid_fraction=1",
    "sampling.temperature=0": "sampling.greedy=true",
    "sampling.top_p=2": "sampling.top_p=2",
    "sampling.prefix=": "sampling.prefix",
    "evaluation.protocol=streem": "did you mean 'stream'?",
    "model.hidden_size=3,4": "add -m",
    "data=penn_treebank": "add data.path=",
    "task=sample": "add run=latest",
    "task=compare": "add task.runs=...",
    "run=latest": "only these tasks read a run: deploy, evaluate, sample",
    "model.bidirectional=true": "data/batching=windows",
    "model.tie_weights=true model.embedding_size=128": "model.embedding_size=256",
    "device=tpu": "unknown device 'tpu'",
    "seed=-1": "seed=-1",
}


@pytest.mark.parametrize("word", REFUSED)
def test_a_request_that_makes_no_sense_is_refused_while_it_is_composed(word: str) -> None:
    with pytest.raises(Refused) as refused:
        compose(word.split())
    assert REFUSED[word] in str(refused.value)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("model=ltsm",), "unroll: unknown model 'ltsm': did you mean 'lstm'? known: gru, lstm"),
        (("data=text_files", "data.path=/nowhere/at all"), "/nowhere/at all does not exist"),
        (
            ("task=sample", "run=nothing"),
            "run=nothing is not a run in",
        ),
        (
            ("data=lee_news", "data/batching=windows", "data.batching.length=5000"),
            "the longest has",
        ),
        (("sampling.prefix=[' ']",), "is empty"),
        (("model.hidden_size=1000000", "model.embedding_size=8"), "does not fit into memory"),
    ],
)
def test_a_refused_command_prints_one_line_exits_with_2_and_leaves_nothing(
    tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    assert line in refusal(tmp_path, *words)


@pytest.mark.parametrize("words", [["model=ltsm"], ["data=text_files", "data.path=nowhere"]])
def test_help_and_refusals_import_neither_torch_nor_datasets_nor_mlflow(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {words}\n"
        "from unroll.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 2\n"
        "assert not {'torch', 'datasets', 'mlflow', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    shown = subprocess.run(command("--help"), capture_output=True, text=True, check=True)
    assert "rnn" in shown.stdout


def test_every_option_of_every_group_composes() -> None:
    """Those of ``experiment`` are in test_overlays.py."""
    for path in sorted(CONF.rglob("[!_]*.yaml")):
        group = str(path.parent.relative_to(CONF))
        if path.name == "config.yaml" or group.startswith("experiment"):
            continue
        words = [f"{group}={path.stem}"]
        words += ["data.path=x"] if path.stem in ("penn_treebank", "text_files", "lyrics") else []
        words += ["data.dataset=x"] if path.stem == "hub" else []
        if group == "task" and schema("task", path.stem).reads_run:
            words += ["run=latest"]
        words += ["task.runs=[latest]"] if path.stem == "compare" else []
        compose(words)


def test_every_registered_name_can_be_chosen() -> None:
    groups = ("model", "data", "optimizer", "data/tokenizer", "data/batching", "task")
    for group in (*groups, "training/truncation"):
        assert {path.stem for path in (CONF / group).glob("[!_]*.yaml")} == set(names(group))


def test_the_lab_overlays_pin_the_lab() -> None:
    for cell in ("rnn", "lstm", "gru"):
        config = compose([f"experiment=lab/{cell}"])
        assert (config.model.name, config.data.name) == (cell, "ag_news")
        assert (config.model.embedding_size, config.model.hidden_size) == (128, 512)
        assert config.model.layers == 2
        batching = config.data.batching
        assert (batching.name, batching.length, batching.batch_size) == ("windows", 100, 32)
        assert (config.optimizer.name, config.optimizer.learning_rate) == ("adam", 1e-3)
        assert (config.training.epochs, config.training.clip_norm) == (20, None)
        assert (config.sampling.temperature, config.sampling.length) == (0.8, 100)


def test_one_override_of_training_reaches_every_group_that_refers_to_it() -> None:
    config = compose(["training.dropout=0.4"])
    assert config.model.dropout == config.model.output_dropout == 0.4


def test_a_training_writes_every_key_of_its_result(trained: Path) -> None:
    result = json.loads((trained / "first" / "result.json").read_text(encoding="utf-8"))
    keys = "task run_id config_fingerprint vocabulary_size parameters epochs steps"
    keys += " tokens_per_second train valid test samples"
    assert set(keys.split()) <= set(result)
    assert result["steps"] == 12
    assert set(result["test"]) >= {
        "perplexity",
        "nats_per_token",
        "bits_per_character",
        "accuracy",
        "tokens",
        "unknown_rate",
    }
    assert len(result["samples"]) == 2
    assert all(item["prefix"] and item["text"] for item in result["samples"])


def test_a_run_keeps_params_curves_and_artifacts_in_mlflow(trained: Path) -> None:
    from unroll.tracking.store import connect

    client = connect(trained / "mlruns")
    (run,) = client.search_runs(["1"])
    result = json.loads((trained / "first" / "result.json").read_text(encoding="utf-8"))
    assert run.info.run_id == result["run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.params["model.hidden_size"] == "8"
    assert run.data.tags["config_fingerprint"] == result["config_fingerprint"]
    assert run.data.metrics["test/perplexity"] == pytest.approx(result["test"]["perplexity"])
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    assert set(steps) >= {1, 3, 6, 9, 12}
    assert steps == sorted(set(steps))
    kept = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert kept >= {"config.json", "generated.txt", "loss_curve.svg", "model", "checkpoints"}


def test_the_same_command_twice_gives_the_same_losses(trained: Path, tmp_path: Path) -> None:
    unroll(tmp_path, *TINY, "training.max_steps=12", "tracking=disabled")
    again = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    first = json.loads((trained / "first" / "result.json").read_text(encoding="utf-8"))
    assert again["train"] == first["train"]
    assert again["test"] == first["test"]
    assert again["samples"] == first["samples"]


def test_a_cached_stream_trains_on_a_machine_without_datasets_and_mlflow(trained: Path) -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('datasets', 'mlflow'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from unroll.app import main\n"
        "main()"
    )
    words = [*TINY, "training.max_steps=2", "tracking=disabled", f"data.cache={trained}/cache"]
    words += [f"tracking.directory={trained}/other", f"hydra.run.dir={trained}/bare"]
    subprocess.run(
        [sys.executable, "-c", code, *words], check=True, capture_output=True, timeout=120
    )
    assert (trained / "bare" / "result.json").is_file()


def test_a_text_file_is_scored_with_the_run_s_own_vocabulary(trained: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The police said\n\nzebra xylophone the fire", encoding="utf-8")
    words = ["task=evaluate", f"run={trained}/first/checkpoints/best.safetensors"]
    words += [f"evaluation.text={text}", "tracking=disabled", f"data.cache={trained}/cache"]
    found = dispatch(compose(words), tmp_path, words, reuse=False)
    assert found["tokens"] == 6
    assert found["unknown_rate"] >= 2 / 6


@pytest.mark.parametrize("reference", ["latest", "first", "ID", "FOLDER", "FILE"])
def test_a_run_is_found_by_name_id_latest_and_path(
    trained: Path, tmp_path: Path, reference: str
) -> None:
    result = json.loads((trained / "first" / "result.json").read_text(encoding="utf-8"))
    best = trained / "first" / "checkpoints" / "best.safetensors"
    given = {"ID": result["run_id"], "FOLDER": best.parents[1], "FILE": best}
    # the run directory was moved after training: the ledger is put right before it is asked
    for path in (trained / "mlruns" / "ledger").glob("*.json"):
        entry = json.loads(path.read_text(encoding="utf-8")) | {"directory": str(trained / "first")}
        path.write_text(json.dumps(entry), encoding="utf-8")
    words = ["task=evaluate", f"run={given.get(reference, reference)}"]
    words += [f"tracking.directory={trained}/mlruns", f"data.cache={trained}/cache"]
    found = dispatch(compose(words), tmp_path, words, reuse=False)
    assert found["run_id"] == result["run_id"]
    assert found["perplexity"] == pytest.approx(result["test"]["perplexity"], rel=1e-6)


def test_a_run_directory_that_holds_a_run_is_not_written_over(trained: Path) -> None:
    (trained / "first").rename(trained / "run")
    before = (trained / "run" / "result.json").read_bytes()
    found = unroll(trained, *TINY, "training.max_steps=2", code=2)
    assert "holds a run already" in found.stderr
    assert (trained / "run" / "result.json").read_bytes() == before
    (trained / "run").rename(trained / "first")


def test_a_trained_run_refuses_another_model_and_damaged_checkpoints(
    trained: Path, tmp_path: Path
) -> None:
    best = trained / "first" / "checkpoints" / "best.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(best.read_bytes()[:-100])
    assert "damaged" in refusal(tmp_path, "task=sample", f"run={cut}", "sampling.prefix=the")
    words = ("task=sample", f"run={best}", "model.hidden_size=64")
    assert "come from the run" in refusal(tmp_path, *words)


@pytest.mark.usefixtures("mlruns")
def test_ctrl_c_ends_with_a_checkpoint_and_a_killed_run(tmp_path: Path) -> None:
    words = [*TINY[:-1], "training.epochs=100000", f"tracking.directory={tmp_path}/mlruns"]
    words += [f"data.cache={tmp_path}/cache", f"hydra.run.dir={tmp_path}/run"]
    process = subprocess.Popen(
        command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "best.safetensors").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["interrupted"] is True
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file()
    from unroll.tracking.store import connect

    (run,) = connect(tmp_path / "mlruns").search_runs(["1"])
    assert (run.info.status, run.data.tags["interrupted"]) == ("KILLED", "true")


@pytest.mark.usefixtures("mlruns")
def test_a_loss_that_is_nan_ends_the_run_as_failed_with_step_and_cause(
    tmp_path: Path,
) -> None:
    words = ("optimizer=sgd", "optimizer.learning_rate=1e38", "training.clip_norm=null")
    found = unroll(tmp_path, *TINY, *words, "training.max_steps=20", code=1)
    assert "Traceback" not in found.stderr
    assert "at step" in found.stderr
    assert "optimizer.learning_rate" in found.stderr
    from unroll.tracking.store import connect

    (run,) = connect(tmp_path / "mlruns").search_runs(["1"])
    assert run.info.status == "FAILED"
    assert "at step" in run.data.tags["failure"]


@pytest.mark.usefixtures("mlruns")
def test_a_multirun_has_a_parent_a_table_and_runs_nothing_twice(tmp_path: Path) -> None:
    words = (*TINY, "-m", "model=rnn,gru", "training.max_steps=3,4")
    unroll(tmp_path, *words, "hydra/launcher=joblib")
    from unroll.tracking.store import connect

    client = connect(tmp_path / "mlruns")
    runs = client.search_runs(["1"])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert len(children) == 4
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert "model=rnn,gru" in parent.data.tags["overrides"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    for child in children:
        points = client.get_metric_history(child.info.run_id, "train/loss")
        assert points[-1].step == int(child.data.params["training.max_steps"])
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["children.csv"]
    again = unroll(tmp_path, *words)  # under another launcher
    before = {run.info.run_id for run in runs}
    (second,) = [run for run in client.search_runs(["1"]) if run.info.run_id not in before]
    assert "mlflow.parentRunId" not in second.data.tags  # a parent, and no job
    table = again.stdout[again.stdout.index("run_id,") :].splitlines()
    assert {line.partition(",")[0] for line in table[1:5]} == {
        child.info.run_id for child in children
    }
    assert table[5] == f"parent run {second.info.run_id}: finished"
    for child in children:  # not even touched
        now = client.get_run(child.info.run_id)
        assert (now.info.end_time, now.data.metrics) == (child.info.end_time, child.data.metrics)
