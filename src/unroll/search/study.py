"""The study of a search: where its trials are kept, what the next one is, what became of one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll import overlay
from unroll.errors import FAILURE, Refused, bounded, first_line, redacted_value, require
from unroll.search.config import SearchConfig
from unroll.search.space import Space
from unroll.sweep import Note
from unroll.tracking import ledger

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

FOLDER, DATABASE, WORDS, RUN = "search", "study.db", "words", "run_id"
"""Folder of all searches in that of the store, and file of one; attributes of a study and of a
trial."""
BUSY_SECONDS = 60
"""For which a job waits while another writes to the SQLite file."""


def require_optuna() -> Any:
    """The package optuna.

    Raises:
        Refused: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise Refused(
            "hydra/sweeper=optuna needs the package optuna: install it with "
            "pip install 'unroll[optuna]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@dataclass(frozen=True)
class Search:
    """A search: its config, what it varies, and the folder of the store, which has its own in it.

    Raises:
        Refused: optuna is not installed, or a value of the config is out of its range.
    """

    config: SearchConfig
    space: Space
    store: Path

    def __post_init__(self) -> None:
        require_optuna()
        self.config.check()

    @property
    def words(self) -> list[str]:
        """What decides the trials on the command line."""
        return [word for word in self.space.given if overlay.decides(word)]

    @property
    def name(self) -> str:
        """The name of the study. Without a given one, the same words have the same name."""
        config = self.config
        recipe = [self.words, config.sampler, config.pruner, config.startup_trials, config.seed]
        made = hashlib.blake2b(json.dumps(recipe).encode(), digest_size=4).hexdigest()
        return config.study_name or f"search-{made}"

    @property
    def folder(self) -> Path:
        return self.store / FOLDER / self.name

    @property
    def url(self) -> str:
        """The address of the storage."""
        return self.config.storage or f"sqlite:///{(self.folder / DATABASE).resolve()}"

    @cached_property
    def storage(self) -> BaseStorage:
        """Where trials are kept.

        Raises:
            Refused: it cannot be opened.
        """
        if self.config.storage is None:
            self.folder.mkdir(parents=True, exist_ok=True)
        return open_storage(self.url)

    @cached_property
    def study(self) -> Study:
        """The study, which is created if it does not exist.

        Raises:
            Refused: the storage cannot be opened, or has another search under this name.
        """
        study: Study = require_optuna().create_study(
            storage=self.storage, study_name=self.name, direction="minimize", load_if_exists=True
        )
        words = redacted_value(self.words)
        if WORDS not in study.user_attrs:
            study.set_user_attr(WORDS, words)
        differing = sorted({*study.user_attrs[WORDS]} ^ {*words})
        require(
            not differing,
            f"the search {self.name} was begun with other overrides ({', '.join(differing)}): give "
            "the same, or another hydra.sweeper.study_name",
        )
        return study

    def open(self) -> None:
        """Open the study if there is one; see ``study``. A new one is made for its first trial."""
        if self.config.storage is not None or (self.folder / DATABASE).exists():
            _ = self.study

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Let one process at a time carry out the search.

        Raises:
            Refused: another process does.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise Refused(
                f"another process is carrying out the search {self.name}: wait for it, or give "
                "another hydra.sweeper.study_name"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def finished(self) -> list[FrozenTrial]:
        """The trials that have ended, in their order."""
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.is_finished() and self._is_drawn(trial)
        ]

    def cut_off(self) -> list[FrozenTrial]:
        """The trials that were begun and have not ended. One that was killed before it had all of
        its values is given up."""
        from optuna.trial import TrialState

        begun = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in begun:
            if not self._is_drawn(trial):
                self.study.tell(trial.number, state=TrialState.FAIL)
        return [trial for trial in begun if self._is_drawn(trial)]

    def _is_drawn(self, trial: FrozenTrial) -> bool:
        return set(trial.params) == set(self.space.keys)

    def next_trials(self, most: int) -> list[FrozenTrial]:
        """The trials to run next: those that were cut off, then new ones.

        Args:
            most: of them at a time.
        """
        cut_off = self.cut_off()
        trials = cut_off[:most]
        begun = len(cut_off) + len(self.finished())
        for _ in range(min(most - len(trials), self.config.n_trials - begun)):
            trials.append(self._ask())
        return trials

    def chosen(self, trial: FrozenTrial) -> list[str]:
        """The words that a trial does not share with the others."""
        return [f"{name}={trial.params[name]}" for name in self.space.keys]

    def _ask(self) -> FrozenTrial:
        # one sampler a trial: a search that goes on draws what it would have drawn
        self.study.sampler = make_sampler(self.config, len(self.study.get_trials(deepcopy=False)))
        spaces = {name: key.distribution() for name, key in self.space.keys.items()}
        number = self.study.ask(spaces).number
        return self.study.get_trials(deepcopy=False)[number]

    def tell(self, number: int, note: Note, result: Mapping[str, Any] | None) -> None:
        """Note what became of a trial: its validation loss, or that it was pruned or failed. One
        that another process trains is left open."""
        from optuna.trial import TrialState

        if note.outcome == "elsewhere":
            return
        if result is not None and result.get("run_id"):
            identity = trial_id(self.storage, self.name, number)
            self.storage.set_trial_user_attr(identity, RUN, result["run_id"])
        if note.outcome == "pruned" or note.reason.startswith(FAILURE):
            self.study.tell(number, state=TrialState.PRUNED)  # tpe learns to keep away from there
        elif result is None:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, validation_loss(result, self.store))


def validation_loss(result: Mapping[str, Any], store: Path) -> float:
    """The validation loss of a training's best checkpoint, in nats per token.

    Raises:
        Refused: there is no validation split, or the directory of a reused run is gone.
    """
    if result.get("reused"):
        path = ledger.find_training(store, result["run_id"]) / ledger.RESULT
        result = json.loads(path.read_text(encoding="utf-8"))
    valid = result["valid"]
    require(valid, "a search needs the validation split, which the corpus does not have")
    return math.inf if valid["loss"] is None else float(valid["loss"])


def open_storage(url: str) -> BaseStorage:
    """The storage at an address for SQLAlchemy.

    Raises:
        Refused: it cannot be opened.
    """
    optuna = require_optuna()
    engine = {"connect_args": {"timeout": BUSY_SECONDS}} if url.startswith("sqlite") else {}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=engine)
    except Exception as error:  # of SQLAlchemy, of a driver, or that a driver is missing
        raise Refused(
            f"hydra.sweeper.storage={bounded(url, 120)} cannot be opened: "
            f"{first_line(error, 150)}; expected an address such as sqlite:////folder/study.db"
        ) from error


def trial_id(storage: BaseStorage, name: str, number: int) -> int:
    """The id in its storage of a trial of the study with this name."""
    study = storage.get_study_id_from_name(name)
    return int(storage.get_trial_id_from_study_id_trial_number(study, number))


def make_sampler(config: SearchConfig, number: int) -> BaseSampler:
    """The sampler of one trial."""
    import numpy as np  # every command imports this module

    samplers = require_optuna().samplers
    seed = int(np.random.SeedSequence([config.seed, number]).generate_state(1)[0])
    return {
        "tpe": lambda: samplers.TPESampler(seed=seed, n_startup_trials=config.startup_trials),
        "random": lambda: samplers.RandomSampler(seed=seed),
    }[config.sampler]()


def make_pruner(config: SearchConfig) -> BasePruner:
    pruners = require_optuna().pruners
    return {
        "median": lambda: pruners.MedianPruner(n_startup_trials=config.startup_trials),
        "none": pruners.NopPruner,
    }[config.pruner]()


def watch(sweeper: Mapping[str, Any]) -> Callable[[float, int], bool] | None:
    """What a job asks after each validation, with its loss and its number, whether its trial is to
    stop; None if nothing prunes it.

    Args:
        sweeper: ``hydra.sweeper`` of the job.
    """
    if sweeper.get("trial") is None or sweeper["pruner"] == "none":
        return None
    config = SearchConfig(**sweeper)
    assert config.study_name is not None
    assert config.storage is not None
    assert config.trial is not None
    storage = open_storage(config.storage)
    study: Study = require_optuna().load_study(
        study_name=config.study_name, storage=storage, pruner=make_pruner(config)
    )
    identity = trial_id(storage, config.study_name, config.trial)

    def should_stop(loss: float, validation: int) -> bool:
        if validation not in storage.get_trial(identity).intermediate_values:
            storage.set_trial_intermediate_value(identity, validation, loss)
        return bool(study.pruner.prune(study, storage.get_trial(identity)))

    return should_stop
