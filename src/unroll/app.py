"""The single entry point: compose, check, dispatch."""

from __future__ import annotations

import csv
import errno
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unroll.config import Config, typed
from unroll.errors import BAD_INPUT, INTERRUPTED, Refused, bounded, explain
from unroll.folders import CONF, groups, options
from unroll.overrides import to_hydra_command, to_hydra_override
from unroll.registry import build, restore, schema
from unroll.terminal import PIPE_CLOSED, until_closed

RESULTS = ("test/perplexity", "valid/perplexity", "train/perplexity", "tokens_per_second")
"""What a multirun's table shows of its trainings; of other tasks it shows every metric."""

HELP = """\
Unroll: train, score and sample recurrent language models. One command line is one experiment.

usage: unroll [group=option ...] [key=value ...]
       unroll -m group=option,option key=value,value ...    one run for each combination

Groups (folders of conf/) and their options:
{groups}

Examples:
  unroll model=gru data/batching=sequential training.epochs=3
  unroll -m model=rnn,lstm,gru model.hidden_size=64,128
  unroll -m hydra/launcher=joblib hydra.launcher.n_jobs=2 seed=1,2,3
  unroll task=sample run=latest sampling.prefix="the prime minister"
  unroll task=evaluate run=latest evaluation.protocol=window
  unroll task=describe data=text_files data.path=book.txt
  unroll task=compare task.runs=[ID,ID]
  unroll task=deploy run=latest
  unroll task=forecast task.forecaster=gru

Every key of a config with its value:  unroll model=gru --cfg job
Hydra's own flags:                     unroll --hydra-help"""


def main() -> None:
    """The command ``unroll``.

    Exits with 0; with 2 if the request cannot be met; with 1 if the run failed; with 130 after
    Ctrl-C. If the reader of the output closes the pipe, as ``head`` does, the command goes on
    without output, keeps its result, and exits with 141.
    """
    with until_closed() as streams:
        code = command(sys.argv[1:])
    if not code and any(stream.was_closed for stream in streams):
        code = PIPE_CLOSED
    if code:
        sys.exit(code)


def command(words: list[str]) -> int:
    """Carry out one command line; the exit code."""
    if {"--help", "-h"} & set(words):  # Hydra's own help takes five seconds
        listed = "\n".join(f"  {group:20} {', '.join(options(group))}" for group in groups())
        print(HELP.format(groups=listed))
        return 0
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises errors and prints none
    job, status = Job(), "FAILED"
    try:
        sys.argv[1:] = to_hydra_command(words)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
        if job.failure is not None:
            raise job.failure
        status = "FINISHED"
        return 0
    except Exception as error:
        line, code = explain(error)
        if line is None:
            raise
        print(f"unroll: {line}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        status = "KILLED"
        print("unroll: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        if Multirun.family is not None:
            Multirun.close(status)


class Job:
    """What Hydra calls for each job. In a single run an error is kept for ``command``, because
    Hydra would report it too; in a multirun it is raised, so that the sweep ends."""

    __name__ = "unroll"

    def __init__(self) -> None:
        self.failure: BaseException | None = None

    def __call__(self, composed: DictConfig) -> dict[str, Any] | None:
        settings = HydraConfig.get()
        directory = Path(settings.runtime.output_dir)
        multirun = settings.mode == RunMode.MULTIRUN
        try:
            with until_closed():  # the job of a multirun may be a process of its own
                overrides = list(settings.overrides.task)
                return dispatch(typed(composed), directory, overrides, reuse=multirun)
        except BaseException as error:
            _prune(directory)
            if multirun:
                raise
            self.failure = error
            return None


def dispatch(
    config: Config, directory: Path, overrides: list[str], *, reuse: bool
) -> dict[str, Any]:
    """Carry out one composed config in its run directory; return its result.

    With ``reuse``, a training that has finished before under the same config fingerprint is not
    run again, unless ``config.rerun``.
    """
    result: dict[str, Any] = build(
        "task", config.task, config, directory, overrides, reuse and not config.rerun
    )
    return result


def compose(overrides: Iterable[str]) -> Config:
    """The config that a command line of these overrides composes.

    Raises:
        Refused: as the command line would.
    """
    words = [to_hydra_override(word) for word in overrides]
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return typed(hydra.compose("config", words))
    except (HydraException, OmegaConfBaseException) as error:
        raise Refused(explain(error)[0]) from error


class Directories(Callback):
    """Creates the directory of a run before Hydra does, so that one that cannot be created is
    refused in one line."""

    def on_run_start(self, config: DictConfig, **keywords: Any) -> None:
        _create("hydra.run.dir", config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **keywords: Any) -> None:
        _create("hydra.sweep.dir", config.hydra.sweep.dir)


def _create(key: str, directory: str) -> None:
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:  # Hydra would turn it into a warning
        line = f"{key}={directory} cannot be written: {error.strerror}; name another folder"
        print(f"unroll: {bounded(line)}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def _prune(directory: Path) -> None:
    """Remove the run directory and the two folders above it, as far as they are empty."""
    for folder in (directory, directory.parent, directory.parent.parent):
        try:
            folder.rmdir()
        except OSError:
            return


class Multirun(Callback):
    """Gives a multirun its parent run in MLflow, named after its overrides."""

    family: Any = None

    def on_multirun_start(self, config: DictConfig, **keywords: Any) -> None:
        if config.tracking.name != "mlflow" or not schema("task", config.task.name).makes_run:
            return
        from unroll.tracking.config import MLflowConfig
        from unroll.tracking.family import PARENT, Family

        values = OmegaConf.to_container(config.tracking, resolve=True)
        assert isinstance(values, dict)
        tracking: MLflowConfig = restore("tracking", values)  # type: ignore[arg-type]
        said = " ".join(config.hydra.overrides.task)
        try:
            Multirun.family = Family.start(tracking, said or "multirun", {"overrides": said})
        except Refused as error:  # Hydra would turn it into a warning
            print(f"unroll: {error}", file=sys.stderr)
            sys.exit(BAD_INPUT)
        os.environ[PARENT] = Multirun.family.run_id

    @staticmethod
    def close(status: str) -> None:
        """End the parent run, and leave with it a table of its children's results."""
        from unroll.tracking.family import PARENT

        family, Multirun.family = Multirun.family, None
        os.environ.pop(PARENT, None)
        family.finish(status)
        table = children_table(family.children())
        family.client.log_text(family.run_id, table, "children.csv")
        print(f"\n{table}parent run {family.run_id}: {status.lower()}")


def children_table(children: list[Any]) -> str:
    """CSV: a row for each child with what tells it from the others and how it came out."""
    there = {key for run in children for key in run.data.metrics}
    results = [key for key in RESULTS if key in there] or sorted(there)
    varied = [
        key
        for key in sorted({key for run in children for key in run.data.params})
        if len({run.data.params.get(key) for run in children}) > 1
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run_id", "name", "status", *varied, *results])
    for run in children:
        values = [run.data.params.get(key, "") for key in varied]
        figures = [
            f"{run.data.metrics[key]:.6g}" if key in run.data.metrics else "" for key in results
        ]
        writer.writerow([run.info.run_id, run.info.run_name, run.info.status, *values, *figures])
    return text.getvalue()
