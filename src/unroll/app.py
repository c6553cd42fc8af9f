"""The single entry point: compose, check, dispatch."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from unroll.config import CONF, Config, typed
from unroll.errors import Refused, unknown
from unroll.registry import build, restore

FREE_TEXT = {
    "sampling.prefix",
    "sampling.stop",
    "run",
    "data.path",
    "data.valid_path",
    "data.test_path",
    "data.text_column",
    "evaluation.text",
    "tracking.run_name",
}
_CONVERSION = re.compile(r"Value '(.*)' of type .* could not be converted to (\w+)")
KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
RESUMING = ("sample", "evaluate")
"""Tasks that add to a run and make none of their own."""
RESULTS = ("test/perplexity", "valid/perplexity", "train/perplexity", "tokens_per_second")
"""What a multirun's table shows of its trainings; of other tasks it shows every metric."""

HELP = """\
Unroll: train, score and sample recurrent language models, one line an experiment.

usage: unroll [group=option ...] [key=value ...]
       unroll -m group=option,option key=value,value ...    one run for each combination

Groups (folders of conf/) and their options:
{groups}

By example:
  unroll model=gru data/batching=sequential training.epochs=3
  unroll -m model=rnn,lstm,gru model.hidden_size=64,128
  unroll -m hydra/launcher=joblib hydra.launcher.n_jobs=2 seed=1,2,3
  unroll task=sample run=latest sampling.prefix="the prime minister"
  unroll task=evaluate run=latest evaluation.protocol=window
  unroll task=describe data=text_files data.path=book.txt
  unroll task=compare task.runs=[ID,ID]
  unroll task=deploy run=latest
  unroll task=forecast task.forecaster=gru

Every key of a choice with its value:  unroll model=gru --cfg job
Hydra's own flags:                     unroll --hydra-help"""


def main() -> None:
    """The command ``unroll``. Exits with 0, with 2 for a request that cannot be met, with 1 for
    a run that failed, with 130 where Ctrl-C ended it."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come through to here, whole
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(HELP.format(groups=group_listing()))  # Hydra's own takes five seconds
        return
    words = [to_hydra_override(word, sys.argv) for word in sys.argv[1:]]
    sys.argv[1:] = sorted(words, key=lambda word: word not in ("-m", "--multirun"))
    status = "FAILED"
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_job)()
        if _job.failure is not None:
            raise _job.failure
        status = "FINISHED"
    except Exception as error:
        line, code = explained(error)
        if line is None:
            raise
        print(f"unroll: {line}", file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:
        status = "KILLED"
        print("unroll: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        if Multirun.family is not None:
            Multirun.close(status)


class _Job:
    """What Hydra calls for each job. In a single run an error is kept for ``main``, past
    Hydra's own report of it; in a multirun it is raised, so that the sweep knows."""

    failure: BaseException | None = None
    __name__ = "unroll"

    def __call__(self, composed: DictConfig) -> dict[str, Any] | None:
        settings = HydraConfig.get()
        directory = Path(settings.runtime.output_dir)
        try:
            return dispatch(
                typed(composed),
                directory,
                list(settings.overrides.task),
                reuse=settings.mode == RunMode.MULTIRUN,
            )
        except BaseException as error:
            _prune(directory)
            if settings.mode == RunMode.MULTIRUN:
                raise
            self.failure = error
            return None


_job = _Job()


def dispatch(
    config: Config, directory: Path, overrides: list[str], *, reuse: bool
) -> dict[str, Any]:
    """Carry out one composed config in its run directory; return its result.

    ``reuse`` lets a training that has finished before under the same config fingerprint stand
    for this one, unless ``config.rerun``.
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
    words = [to_hydra_override(word, []) for word in overrides]
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return typed(hydra.compose("config", words))
    except (HydraException, OmegaConfBaseException) as error:
        raise Refused(explained(error)[0]) from error


class Multirun(Callback):
    """Gives a multirun its parent run in MLflow, named after its overrides."""

    family: Any = None

    def on_multirun_start(self, config: DictConfig, **keywords: Any) -> None:
        if config.tracking.name != "mlflow" or config.task.name in RESUMING:
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


def to_hydra_override(word: str, command: list[str]) -> str:
    """A command-line word as a person says it, put as Hydra reads it.

    ``optimizer.schedule=cosine`` means the group ``optimizer/schedule``, and a free text such as
    ``sampling.prefix=Oil prices, up 5%`` means itself, whatever signs it holds.
    """
    key, equals, value = word.partition("=")
    if word.startswith("-") or not equals:
        return word
    if (CONF / key.replace(".", "/")).is_dir():
        options = value.split(",")  # of which Hydra breaks at a number
        value = ",".join(f"'{option}'" if option.isdigit() else option for option in options)
        return f"{key.replace('.', '/')}={value}"
    if key in FREE_TEXT and value and not _reads_as_meant(word, command):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'") if "'" in value else value
        if quoted.endswith("\\") and not quoted.endswith("\\\\"):
            quoted += "\\"
        return f"{key}='{quoted}'"
    return word


def _reads_as_meant(word: str, command: list[str]) -> bool:
    """Whether Hydra takes the value for a text, a list or null, or for a sweep where one is
    asked for."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    if override.is_sweep_override():
        return "-m" in command or "--multirun" in command
    return not isinstance(override.value(), dict)


def group_listing() -> str:
    """The config groups and their options, a line each."""
    lines = []
    for folder in sorted(path for path in CONF.rglob("*") if path.is_dir()):
        options = _options(folder)
        if options:
            lines.append(f"  {folder.relative_to(CONF)!s:20} {', '.join(options)}")
    return "\n".join(lines)


def _options(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("[!_]*.yaml"))


def _groups() -> list[str]:
    return [str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir()]


def explained(error: BaseException) -> tuple[str | None, int]:
    """One line for an error that a person can mend, and the exit code; None for any other."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for found in chain:
        if isinstance(found, Refused):
            return " ".join(str(found).split()), BAD_INPUT
        if type(found).__name__ == "Diverged":
            return f"the run failed: {found}", FAILED
    for found in chain:
        if isinstance(found, MissingConfigException) and found.missing_cfg_file:
            group, _, option = found.missing_cfg_file.rpartition("/")
            if group == "training/truncation" and option.isdigit():
                return (
                    f"training.truncation={option}: a number alone does not say what is meant; "
                    f"write training.truncation=fixed training.truncation.steps={option}, or "
                    f"data.batching.length={option} for batches of that many steps"
                ), BAD_INPUT
            return unknown(group or "config", option, _options(CONF / group)), BAD_INPUT
        if isinstance(found, (ConfigAttributeError, ConfigKeyError)):
            return _unknown_key(found), BAD_INPUT
        if isinstance(found, OverrideParseException):
            return f"cannot read {found.override!r}: write key=value", BAD_INPUT
    for found in chain:
        if isinstance(found, ValidationError) and "could not be converted to" in str(found):
            given, kind = _CONVERSION.findall(str(found).splitlines()[0])[0]
            wanted = KINDS.get(kind, kind)
            return f"{found.full_key}={given}: {wanted} is wanted here", BAD_INPUT
        if isinstance(found, ValidationError) and "is not a ListConfig" in str(found):
            return f"{found.full_key}: a list is wanted here: {found.full_key}=[...]", BAD_INPUT
    for found in chain:
        if isinstance(found, OmegaConfBaseException):
            key = f"{found.full_key}: " if found.full_key else ""
            return key + str(found).splitlines()[0], BAD_INPUT
    for found in chain:
        if isinstance(found, PermissionError) or getattr(found, "errno", None) == errno.ENOSPC:
            assert isinstance(found, OSError)
            return f"cannot write {found.filename or 'here'}: {found.strerror}", FAILED
    if isinstance(error, HydraException):
        first = str(error).strip().splitlines()[0]
        if first.startswith("Ambiguous value"):
            word = first.split("'")[1]
            return f"{word} names several values: add -m to run each of them", BAD_INPUT
        if "Could not override '" in first and "/" in first.split("'")[1]:
            return unknown("group", first.split("'")[1], _groups()), BAD_INPUT
        return first, BAD_INPUT
    return None, FAILED


def _unknown_key(error: OmegaConfBaseException) -> str:
    key = str(error.full_key or error.key)
    if "/" in key:
        return unknown("group", key, _groups())
    parent, _, last = key.rpartition(".")
    kind = error.object_type
    known = [item.name for item in fields(kind)] if is_dataclass(kind) else []
    within = f"key in {parent}" if parent else "key"
    return unknown(within, last, known)


def _prune(directory: Path) -> None:
    """Remove the run directory that Hydra made, and its day's, where nothing came into them."""
    for folder in (directory, directory.parent, directory.parent.parent):
        try:
            folder.rmdir()
        except OSError:
            return
