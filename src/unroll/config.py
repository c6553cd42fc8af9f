"""The whole config: its schema, how it is composed, how it is fingerprinted.

Importing this module registers every config of the library, and imports neither torch nor
datasets nor mlflow: that is why configs stand in the ``config.py`` of their room, beside the
classes that they build and not in the same file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

import unroll
from unroll.data.config import CorpusConfig
from unroll.errors import Refused, require, require_one_of
from unroll.evaluation.config import EvaluationConfig
from unroll.generation.config import SamplingConfig
from unroll.models.config import ModelConfig, RecurrentConfig, require_one_direction
from unroll.registry import register_schema, restore
from unroll.tasks.config import TaskConfig
from unroll.tracking.config import TrackingConfig
from unroll.training.config import OptimizerConfig, TrainingConfig

CHECKOUT = Path(__file__).resolve().parents[2]
CONF = CHECKOUT / "conf" if (CHECKOUT / "conf").is_dir() else Path(__file__).parent / "conf"
HOME = CHECKOUT if (CHECKOUT / "conf").is_dir() else Path.cwd()
"""Where runs, outputs and caches go: the checkout, or where there is none the working folder."""

NEED_A_RUN = ("sample", "evaluate", "deploy")
"""Tasks that read the run named by ``run=``."""

OmegaConf.register_new_resolver("home", lambda: str(HOME), replace=True)
# words of a symbol and its gap (data=recall, which itself refuses a gap below 0)
OmegaConf.register_new_resolver("through", lambda gap: max(gap, 0) + 1, replace=True)


@dataclass(frozen=True)
class Config:
    """Everything a run is told."""

    task: TaskConfig
    training: TrainingConfig  # first of those that others refer to, so that it is named if wrong
    data: CorpusConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    evaluation: EvaluationConfig
    sampling: SamplingConfig
    tracking: TrackingConfig
    seed: int
    """Seed of initialisation, dropout and the order of batches."""
    device: str
    """auto, cpu, cuda or mps."""
    threads: int | None
    """Threads of one process; null: all cores, shared among parallel jobs."""
    run: str | None
    """The trained run that sample, evaluate and deploy read."""
    rerun: bool
    """In multiruns and studies, run again what has finished before."""

    def __post_init__(self) -> None:
        require_one_of("device", self.device, ("auto", "cpu", "cuda", "mps"))
        require(self.threads is None or self.threads >= 1, f"threads={self.threads}: at least 1")
        require(0 <= self.seed < 2**63, f"seed={self.seed}: from 0 up to 2^63 - 1")
        wanted = self.task.name in NEED_A_RUN
        require(
            not wanted or self.run,
            f"task={self.task.name} needs a trained run: add run=latest, or a run id, a run name, "
            "or a checkpoint's path",
        )
        require(
            wanted or self.run is None,
            f"run={self.run} has no meaning for task={self.task.name}: it is what "
            f"{', '.join(NEED_A_RUN)} read",
        )
        require(
            isinstance(self.model, RecurrentConfig) or self.evaluation.gradient_steps is None,
            f"evaluation.gradient_steps has no meaning for model={self.model.name}, which has no "
            "gradient: leave it out",
        )
        if not wanted and isinstance(self.model, RecurrentConfig):
            for key, value in {
                "data/batching": self.data.batching.name,
                "evaluation.protocol": self.evaluation.protocol,
                "evaluation.gradient_steps": self.evaluation.gradient_steps,
                "training/truncation": self.training.truncation.name,
            }.items():
                require_one_direction(self.model.bidirectional, key, value)


register_schema("", "root", Config)


def typed(composed: DictConfig) -> Config:
    """The composed config as frozen dataclasses, every value checked.

    Raises:
        Refused: a value is missing, of the wrong type, or out of its range.
    """
    node = OmegaConf.masked_copy(composed, [item.name for item in fields(Config)])
    try:
        values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise Refused(f"{key} is missing: this choice needs it, so add {key}=...") from error
    assert isinstance(values, dict)
    return restored(values)


def restored(values: dict[Any, Any]) -> Config:
    """The config with these values, nested configs as nested dicts.

    Raises:
        Refused: a value is out of its range.
    """
    return Config(
        **{
            key: restore(key, values[key]) if isinstance(values[key], dict) else values[key]
            for key in (item.name for item in fields(Config))
        }
    )


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dataclasses or dicts as one dict with dotted keys."""
    items = config if isinstance(config, dict) else asdict(config)
    found: dict[str, Any] = {}
    for key, value in items.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def fingerprint(config: Config, corpus_fingerprint: str) -> str:
    """A hash of everything that decides a training's figures: the config less where things are
    kept, and the corpus by its content in place of its path."""
    values = flat(config)
    places = ("tracking.", "data.path", "data.valid_path", "data.test_path", "data.cache")
    kept = {key: value for key, value in values.items() if not key.startswith(places)}
    kept.pop("rerun")
    recipe = [unroll.__version__, corpus_fingerprint, kept]
    text = json.dumps(recipe, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
