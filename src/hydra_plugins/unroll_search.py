"""The sweeper of ``hydra/sweeper=optuna``: Hydra looks for plugins in this namespace package."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from unroll.search.config import SearchConfig


class OptunaSweeper(Sweeper):
    """Runs the trials of a search as the jobs of a multirun; see ``unroll.search``."""

    def __init__(self, **values: Any) -> None:
        self.search_config = SearchConfig(**values)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from unroll.search.trials import carry_out  # Hydra imports every plugin for every command

        carry_out(self, arguments)
