"""The directory of a run: created before the run starts, removed if it stays empty."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unroll.errors import first_line, redacted_value, refuse_in_hydra
from unroll.sweep import NOTES


class RunDirectory(Callback):
    """Creates the directory of a run before Hydra does, so that one that cannot be created is
    refused in one line."""

    sweep: Path | None = None
    """The directory of the multirun, in one."""

    def on_run_start(self, config: DictConfig, **keywords: Any) -> None:
        _create("hydra.run.dir", config)

    def on_multirun_start(self, config: DictConfig, **keywords: Any) -> None:
        _create("hydra.sweep.dir", config)
        RunDirectory.sweep = Path(config.hydra.sweep.dir)
        shutil.rmtree(RunDirectory.sweep / NOTES, ignore_errors=True)  # of an earlier multirun
        _write_no_secrets(get_class(config.hydra.sweeper._target_))


def _create(key: str, config: DictConfig) -> None:
    directory = ""
    try:
        directory = str(OmegaConf.select(config, key))
        Path(directory).mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, OmegaConfBaseException) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        refuse_in_hydra(f"{key}={directory} cannot be written: {reason}; name another folder")


def _write_no_secrets(sweeper: Any) -> None:
    """Hydra's sweeper writes its config into the directory of the multirun: give it one without
    secrets. The jobs are made of the words of the command line and of the launcher's config."""
    sweep = sweeper.sweep

    def without_secrets(self: Any, arguments: list[str]) -> Any:
        sweeper.sweep, directory = sweep, self.config.hydra.sweep.dir
        self.config = OmegaConf.create(redacted_value(OmegaConf.to_container(self.config)))
        self.config.hydra.sweep.dir = directory
        return sweep(self, arguments)

    sweeper.sweep = without_secrets


def remove_if_empty(directory: Path) -> None:
    """Remove the run directory and the two folders above it, as far as they are empty."""
    for folder in (directory, directory.parent, directory.parent.parent):
        try:
            folder.rmdir()
        except OSError:
            return
