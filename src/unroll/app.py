"""The single entry point: compose, check, dispatch."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unroll import processes, sweep
from unroll.config import Config, require_shareable, typed
from unroll.errors import INTERRUPTED, TERMINATED, Refused, Terminated, explain, require
from unroll.folders import CONF
from unroll.overrides import (
    CONFIG,
    config_source,
    hydra_overrides,
    jobs_to_check,
    search_space,
    to_hydra_command,
    to_hydra_override,
)
from unroll.registry import build, schema
from unroll.run_directory import RunDirectory, remove_if_empty
from unroll.search.config import SearchConfig
from unroll.search.space import Space
from unroll.search.study import Search, watch
from unroll.terminal import PIPE_CLOSED, silently, until_closed
from unroll.tracking.multirun import PARENT, Multirun
from unroll.usage import usage


def main() -> None:
    """The command ``unroll``.

    Exits with 0; with 2 if the request cannot be met; with 1 if the run failed; with 130 after
    Ctrl-C; with 75 after SIGTERM. If the reader of the output closes the pipe, as ``head`` does,
    the command goes on without output, keeps its result, and exits with 141.
    """
    words = sys.argv[1:]
    with until_closed() as streams:
        code = command(words) if processes.rank() == 0 else silently(lambda: follow(words))
    if not code and any(stream.was_closed for stream in streams):
        code = PIPE_CLOSED
    if code:
        sys.exit(code)


def command(words: list[str]) -> int:
    """Carry out one command line; the exit code."""
    if {"--help", "-h"} & set(words):  # Hydra's own help takes five seconds
        print(usage())
        return 0
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises errors and prints none
    end_on_sigterm()
    job, status = Job(), "FAILED"
    try:
        sys.argv[1:] = to_hydra_command(words)
        source = config_source(sys.argv[1:])
        for job_words in jobs_to_check(sys.argv[1:]):  # before the first job starts
            config = compose(job_words, *source)
        if space := search_space(sys.argv[1:]):
            check_search(space, hydra_overrides(sys.argv[1:]), config)
        # Hydra would compose the whole config only to read hydra.mode, which -m decides here
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG)(job)()
        if job.failure is not None:
            raise job.failure
        code = 0 if RunDirectory.sweep is None else end_sweep(RunDirectory.sweep, *source)
        status = "FAILED" if code else "FINISHED"
        return code
    except Exception as error:
        line, code = explain(error)
        if line is None:
            raise
        print(f"unroll: {line}", file=sys.stderr)
        return code
    except KeyboardInterrupt as error:
        status = "KILLED"
        if isinstance(error, Terminated) or Terminated.received:
            print(f"unroll: terminated{error}", file=sys.stderr)
            return TERMINATED
        print("unroll: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        Multirun.close(status)


def follow(words: list[str]) -> int:
    """Carry out one command line in another process than the first, which has the run directory:
    Hydra gets one that is empty and removed; the exit code."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return command([*words, f"hydra.run.dir={folder}/unused/run"])  # see remove_if_empty


def end_on_sigterm() -> None:
    """End as after Ctrl-C on SIGTERM, so that the run in the store ends as KILLED."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)


def terminate(number: int, frame: object) -> None:
    Terminated.received = True
    raise Terminated


class Job:
    """What Hydra calls for each job. In a single run an error is kept for ``command``, because
    Hydra would report it too; in a multirun it is noted, and the other jobs go on."""

    __name__ = "unroll"

    def __init__(self) -> None:
        self.failure: BaseException | None = None

    def __getstate__(self) -> dict[str, str]:
        """What goes to the process of a job, which may have the environment of another machine."""
        return {name: os.environ[name] for name in (PARENT,) if name in os.environ}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__()  # type: ignore[misc]
        os.environ.pop(PARENT, None)  # of the multirun before, in a process that is used again
        os.environ.update(state)

    def __call__(self, composed: DictConfig) -> Any:
        settings = HydraConfig.get()
        directory = Path(settings.runtime.output_dir)
        # as they were typed: a word may hold an interpolation that does not resolve
        overrides: Any = OmegaConf.to_container(settings.overrides.task)
        multirun = settings.mode == RunMode.MULTIRUN

        def work() -> dict[str, Any]:
            return dispatch(
                typed(composed),
                directory,
                overrides,
                reuse=multirun,
                should_stop=watch(settings.sweeper),
            )

        try:
            with until_closed():  # the job of a multirun may be a process of its own
                if not multirun:
                    return work()
                note, result = sweep.carry_out(int(settings.job.num), overrides, work)
                note.write(Path(settings.sweep.dir))
                if note.reason:
                    print(f"unroll: job {note.number} failed: {note.reason}", file=sys.stderr)
                return note, result
        except BaseException as error:
            if multirun:
                raise
            self.failure = error
        finally:
            remove_if_empty(directory)
        return None


def end_sweep(folder: Path, name: str, added: Path | None) -> int:
    """Wait for the jobs of a multirun that other processes run, and say what became of all.

    Args:
        folder: of the multirun.
        name, added: where the config of its command comes from, as for ``compose``.
    """

    def again(note: sweep.Note) -> dict[str, Any]:
        directory = folder / str(note.number)
        try:
            config = compose(note.overrides, name, added)
            return dispatch(config, directory, note.overrides, reuse=True)
        finally:
            remove_if_empty(directory)

    sweep.wait(folder, again)
    found = sweep.notes(folder)
    print(f"\n{sweep.summary(found)}", flush=True)
    return sweep.exit_code(found)


def check_search(space: Space, words: list[str], config: Config) -> None:
    """Raise ``Refused`` if a search cannot begin, before it runs anything.

    Args:
        words: the overrides of Hydra's own config.
        config: of one of its trials.
    """
    task = config.task.name
    require(
        task == "train",
        f"hydra/sweeper=optuna compares trainings, and task={task} is none: leave one of them out",
    )
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composed = hydra.compose(CONFIG, words, return_hydra_config=True)
    Search(SearchConfig(**composed.hydra.sweeper), space, Path(config.tracking.directory)).open()


def dispatch(
    config: Config,
    directory: Path,
    overrides: list[str],
    *,
    reuse: bool,
    should_stop: Callable[[float, int], bool] | None = None,
) -> dict[str, Any]:
    """Carry out one composed config in its run directory; return its result. A search may stop a
    training by ``should_stop``, as ``tasks.train`` says.

    With ``reuse``, a training that has finished before under the same config fingerprint is not
    run again, unless ``config.rerun``.

    Raises:
        Refused: the corpus is missing, or the processes of ``torchrun`` cannot share the work,
            which is said before PyTorch is imported; or as the task.
    """
    if config.resume is None:  # else the config of the run counts
        require_shareable(config)
    if not schema("task", config.task.name).reads_run:
        build("data", config.data).files()
    watched = {} if should_stop is None else {"should_stop": should_stop}
    result: dict[str, Any] = build(
        "task", config.task, config, directory, overrides, reuse and not config.rerun, **watched
    )
    return result


def compose(overrides: Iterable[str], name: str = CONFIG, added: Path | None = None) -> Config:
    """The config that a command line of these overrides composes.

    Args:
        name: of the config that it begins with.
        added: folder of configs besides those of Unroll.

    Raises:
        Refused: as the command line would.
    """
    words = [to_hydra_override(word) for word in overrides]
    if added is not None:
        words.append(f"hydra.searchpath=['file://{added}']")
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return typed(hydra.compose(name, words))
    except (HydraException, OmegaConfBaseException) as error:
        raise Refused(explain(error)[0]) from error
