"""The whole config: its schema, how it is composed, its fingerprint.

Importing this module registers every config of the library, and imports neither torch nor
datasets nor mlflow. That is why a config is in the ``config.py`` of its package, and not in the
file of the class that it builds.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from unroll import processes
from unroll.data.config import CorpusConfig
from unroll.errors import Refused, require, require_one_of
from unroll.evaluation.config import EvaluationConfig
from unroll.folders import CHECKOUT as CHECKOUT
from unroll.folders import CONF as CONF
from unroll.folders import HOME, PACKAGE, write_atomically
from unroll.generation.config import SamplingConfig
from unroll.models.config import (
    PRECISIONS,
    ModelConfig,
    NeuralConfig,
    RecurrentConfig,
    require_one_direction,
)
from unroll.registry import names, register_schema, restore_key, schema
from unroll.tasks.config import TaskConfig
from unroll.tracking.config import TrackingConfig
from unroll.training.config import OptimizerConfig, TrainingConfig

NOT_IN_RESULTS = (
    "report",
    "tracking",
    "app",
    "engines",
    "errors",
    "folders",
    "overlay",
    "overrides",
    "run_directory",
    "search",
    "sweep",
    "terminal",
    "usage",
)
"""Packages and modules of ``unroll`` that no figure of a training depends on."""

OmegaConf.register_new_resolver("home", lambda: str(HOME), replace=True)
# the default of model.tie_weights
OmegaConf.register_new_resolver(
    "tied",
    lambda embedding, hidden, one_hot, softmax, bidirectional=False, last=None: (
        embedding == (last or hidden) and not one_hot and not bidirectional and softmax == "full"
    ),
    replace=True,
)
# words of a symbol and its gap (data=recall, whose config refuses a gap below 0)
OmegaConf.register_new_resolver("through", lambda gap: max(gap, 0) + 1, replace=True)


PLACES = (
    "tracking.",
    "data.path",
    "data.valid_path",
    "data.test_path",
    "data.cache",
    "data.shards",
)
"""Keys that say where and how things are stored, not what is run."""


WITHOUT_REGULARIZERS = {
    "averaging": "none",
    "dropout_mask": "element",
    "weight_dropout": 0.0,
    "word_dropout": 0.0,
    "activation_regularization": 0.0,
    "temporal_activation_regularization": 0.0,
}
"""Keys of ``training`` that only a model with layers may change, the weight dropout only one with
recurrent matrices, with their values for the others."""
INT8_TASKS = ("sample", "evaluate")
"""Tasks that may run a trained model in int8."""


def require_adaptable(model: ModelConfig, evaluation: EvaluationConfig) -> None:
    """Raise ``Refused`` if a model cannot adapt to the text that it scores as the config says."""
    neural = isinstance(model, NeuralConfig)
    require(
        neural or evaluation.dynamic.learning_rate is None,
        f"evaluation.dynamic has no meaning for model={model.name}, which has no gradient: set "
        "evaluation.dynamic.learning_rate=null",
    )
    require(
        neural or evaluation.cache.size is None or evaluation.cache.theta == 0,
        f"evaluation.cache.theta={evaluation.cache.theta} has no meaning for model={model.name}, "
        "which has no hidden vectors to compare: set evaluation.cache.theta=0, where all that is "
        "remembered counts the same, or evaluation.cache.size=null",
    )


def require_shareable(config: Config) -> None:
    """Raise ``Refused`` if the processes of ``torchrun`` cannot carry out a config together."""
    size, rows = processes.size(), config.data.batching.batch_size
    if size == 1:
        return
    require(
        config.task.name == "train" and isinstance(config.model, NeuralConfig),
        f"only the training of a neural model is shared out among processes, not "
        f"task={config.task.name} with model={config.model.name}: start it without torchrun",
    )
    require(
        rows % size == 0,
        f"data.batching.batch_size={rows} cannot be shared out evenly among {size} processes: set "
        f"a multiple of {size}, such as {-(-rows // size) * size}",
    )


@dataclass(frozen=True)
class Config:
    """Everything that a user can set for a run."""

    task: TaskConfig
    training: TrainingConfig  # before those that refer to it, so that an error names its key
    data: CorpusConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    evaluation: EvaluationConfig
    sampling: SamplingConfig
    tracking: TrackingConfig
    seed: int
    """Seed of initialization, dropout and the order of batches."""
    precision: str
    """Number format of the products of a model. auto: bfloat16 where the device multiplies it
    faster, else float32, and the run records which; int8, to score and to generate: the weights
    are rounded."""
    device: str
    """auto, cpu, cuda or mps."""
    threads: int | None
    """Threads of one process; null: all cores, shared by parallel jobs."""
    run: str | None
    """The trained run that the task reads, where it reads one."""
    resume: str | None
    """The training to go on with: a run id, a run name, latest, or the path of a run directory."""
    rerun: bool
    """In multiruns and studies, run again what has finished before."""

    free_text = ("run", "resume")

    def __post_init__(self) -> None:
        require_one_of("device", self.device, ("auto", "cpu", "cuda", "mps"))
        require_one_of("precision", self.precision, ("auto", *PRECISIONS, "int8"))
        require(
            self.precision != "int8" or self.task.name in INT8_TASKS,
            f"precision=int8 has no meaning for task={self.task.name}: use it with "
            f"{' or '.join(f'task={name}' for name in INT8_TASKS)}, or set precision=auto",
        )
        require(
            self.precision != "int8" or self.device in ("auto", "cpu"),
            f"precision=int8 is computed on a CPU, not with device={self.device}: leave that out",
        )
        require(
            self.precision != "int8" or self.evaluation.dynamic.learning_rate is None,
            "precision=int8 rounds the weights, and evaluation.dynamic changes them: leave one out",
        )
        require(
            self.threads is None or self.threads >= 1,
            f"threads={self.threads}: must be at least 1 (or null for all cores)",
        )
        require(0 <= self.seed < 2**63, f"seed={self.seed}: must be from 0 to 2^63 - 1")
        reads_run = self.task.reads_run
        require(
            not reads_run or self.run,
            f"task={self.task.name} needs a trained run: add run=latest, or a run id, a run name, "
            "or the path of a checkpoint",
        )
        kinds = {name: schema("task", name) for name in names("task")}
        require(
            self.resume is None or self.task.name == "train",
            f"resume={self.resume} goes on with a training, so it has no meaning for "
            f"task={self.task.name}: leave one of them out",
        )
        readers = [name for name, kind in kinds.items() if kind.reads_run or kind.takes_run]
        require(
            reads_run or self.task.takes_run or self.run is None,
            f"run={self.run} has no meaning for task={self.task.name}; only these tasks read a "
            f"run: {', '.join(readers)}",
        )
        require(
            isinstance(self.model, NeuralConfig) or self.evaluation.gradient_steps is None,
            f"evaluation.gradient_steps has no meaning for model={self.model.name}, which has no "
            "gradient: leave it out",
        )
        for key, off in WITHOUT_REGULARIZERS.items():
            value = getattr(self.training, key)
            value = getattr(value, "name", value)
            needed = RecurrentConfig if key == "weight_dropout" else NeuralConfig
            require(
                value == off or isinstance(self.model, needed),
                f"training.{key}={value} has no meaning for model={self.model.name}, which has "
                "nothing that it could act on: leave it out",
            )
        if not reads_run:
            require_adaptable(self.model, self.evaluation)
        if not reads_run and isinstance(self.model, RecurrentConfig):
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
        Refused: a key is unknown, or a value is missing, of the wrong type, or out of its range.
    """
    known = [item.name for item in fields(Config)]
    for given in map(str, composed):
        require_one_of("key", given, known)
    node = OmegaConf.masked_copy(composed, known)
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
        **{item.name: restore_key(Config, item.name, values[item.name]) for item in fields(Config)}
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
    """A hash of everything that decides the figures of a training: the config without the places
    where files are kept (a curve depends on ``tracking.every``), the content of the corpus in place
    of its path, the source code, and the version of PyTorch."""
    text = json.dumps(recipe(config, corpus_fingerprint), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def recipe(config: Config, corpus_fingerprint: str) -> dict[str, Any]:
    """What ``fingerprint`` is a hash of."""
    kept = {
        key: value
        for key, value in flat(config).items()
        if not key.startswith(PLACES) or key == "tracking.every"
    }
    del kept["rerun"], kept["resume"]
    made = {"source": source_fingerprint(), "torch": version("torch"), "corpus": corpus_fingerprint}
    return {**made, "processes": processes.size(), **kept}


@functools.cache
def source_fingerprint(package: Path = PACKAGE) -> str:
    """A hash of the source code that decides results: every module of the package except
    ``NOT_IN_RESULTS``. Comments, docstrings and layout do not count, because the syntax tree is
    hashed. It is read once for each process, and kept on disk under a hash of the files."""
    sources = {
        path.relative_to(package).with_suffix("").parts: path.read_bytes()
        for path in sorted(package.rglob("*.py"))
    }
    counted = {
        ".".join(module): source
        for module, source in sources.items()
        if module[0] not in NOT_IN_RESULTS and module not in (("__init__",), ("__main__",))
    }
    content = hashlib.blake2b(repr((sys.version_info, counted)).encode(), digest_size=16)
    kept = HOME / ".cache" / "source" / content.hexdigest()
    with contextlib.suppress(OSError):
        if len(found := kept.read_text()) == len(content.hexdigest()):  # else it is cut off
            return found
    found = _hash_of_trees(counted)
    with contextlib.suppress(OSError):  # a folder that cannot be written costs half a second
        write_atomically(kept, found)
    return found


def _hash_of_trees(sources: Mapping[str, bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for module, source in sources.items():
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                node.body = [line for line in node.body if not _is_docstring(line)]
        digest.update(f"{module} {ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def _is_docstring(line: ast.stmt) -> bool:
    """Whether a statement is nothing but a text: the docstring of what it is in or follows."""
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )
