"""The scenarios: what is trained, how it is disturbed, and how often."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from experiments.chaos.evidence import Comparison, compared
from experiments.chaos.processes import MOMENTS, Command, drawn, jobs_begun
from unroll.errors import require
from unroll.tracking import ledger

SMALL = (
    "data=lee_news optimizer/schedule=constant optimizer.learning_rate=3e-3 training.dropout=0.0 "
    "model.tie_weights=false "
    "data.limit=40 model.hidden_size=16 model.embedding_size=16 threads=1 device=cpu "
    "data.batching.batch_size=4 data.batching.length=20 training.validate_every=50 "
    "training.checkpoint_every=10 tracking.every=5 sampling.length=3 tracking.wait_seconds=60"
)
CELLS = {
    "RNN, random truncation": "model=rnn training/truncation=random",
    "LSTM, dropout, cosine schedule": "model=lstm training.dropout=0.3 optimizer/schedule=cosine",
    "GRU, patience": "model=gru training.patience=4",
}
EVERYTHING = (
    "training/truncation=random training.dropout=0.3 optimizer/schedule=cosine training.patience=9"
)
"""Of the jobs of a sweep."""
STEPS = 400
JOBS = ("model=rnn,lstm,gru", "seed=1,2")
LAUNCHERS = {
    "basic": "",
    "joblib": "hydra/launcher=joblib hydra.launcher.n_jobs=2",
    "submitit_local": "hydra/launcher=submitit_local hydra.sweeper.max_batch_size=2",
    "ray": "hydra/launcher=ray +hydra.launcher.ray.init.num_cpus=2",
}
EXTRAS = {"submitit_local": "submitit", "ray": "ray"}
"""Packages that a launcher needs: without its package it is left out."""
SWEEP_KILLS = 2
MOST_TRIES = 5  # without a kill, for one command


@dataclass(frozen=True)
class Row:
    """What a scenario ended with."""

    scenario: str
    kills: int
    weights: bool
    """Whether those of every run are equal to the undisturbed ones."""
    history: bool
    """Whether the metric history of every run is, in its journal and in the store."""
    doubled: int
    """Points that are there more often."""
    seconds: float
    lost: list[float] = field(default_factory=list)
    """Time of training in percent of the undisturbed one, above it, by turn; empty where it says
    nothing."""

    @property
    def equal(self) -> bool:
        return self.weights and self.history and not self.doubled

    @classmethod
    def of(
        cls, name: str, kills: int, found: Comparison, start: float, lost: Sequence[float] = ()
    ) -> Row:
        """The row of a scenario that began at ``start``."""
        seconds = time.monotonic() - start
        return cls(name, kills, found.weights, found.history, found.doubled, seconds, list(lost))


@dataclass(frozen=True)
class Place:
    """Where the runs of one call of the study are."""

    folder: Path
    cache: Path

    def words(self, name: str) -> list[str]:
        """The overrides that keep a command in the folder ``name``."""
        return [
            f"tracking.directory={self.store(name)}",
            f"data.cache={self.cache}",
            f"hydra.run.dir={self.run(name)}",
        ]

    def store(self, name: str) -> Path:
        return self.folder / name / "mlruns"

    def run(self, name: str) -> Path:
        return self.folder / name / "run"

    def command(self, words: Sequence[str], name: str, server: str = "") -> Command:
        """Start a command whose output goes to ``log.txt`` in the folder ``name``."""
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return Command(words, self.folder / name / "log.txt", server)


def complete(place: Place, name: str, words: Sequence[str], server: str = "") -> Path:
    """Train without a disturbance of the process; the run directory.

    Raises:
        Refused: the command failed.
    """
    code = place.command([*words, *place.words(name)], name, server).end()
    require(code == 0, f"{' '.join(words)} ended with code {code}: see {place.folder / name}")
    return place.run(name)


def killed_run(place: Place, label: str, cell: str, kills: int, seed: int) -> Row:
    """One run that is killed at ``kills`` random instants, and resumed after each."""
    start, words = time.monotonic(), [*SMALL.split(), *cell.split(), f"training.max_steps={STEPS}"]
    name = label.split(",")[0].lower()
    undisturbed = complete(place, f"{name} undisturbed", [*words, "training.epochs=null"])
    directory, store = place.run(name), f"tracking.directory={place.store(name)}"
    generator, done = random.Random(seed), 0  # noqa: S311
    going_on = [f"resume={directory}", store]
    # a run that is killed early is killed again soon after, so each part is a share of the whole
    share = 3.0 / max(1, kills)
    while done < kills:
        moment = drawn(MOMENTS[done % len(MOMENTS)], directory, generator, share)
        killed = place.command(_next(directory, words, place.words(name), going_on), name)
        if not killed.kill_at(moment):
            break  # it has reached its end
        done += 1
    _to_the_end(place, name, directory, words, going_on)
    found = compared(directory, undisturbed, place.store(name))
    return Row.of(f"{label}: one run", done, found, start)


def _next(
    directory: Path, words: Sequence[str], places: Sequence[str], going_on: Sequence[str]
) -> list[str]:
    """Resume a run that has begun, else begin it."""
    if (directory / ledger.CONFIG).is_file():
        return list(going_on)
    return [*words, "training.epochs=null", *places]


def _to_the_end(
    place: Place, name: str, directory: Path, words: Sequence[str], going_on: Sequence[str]
) -> None:
    if ledger.is_finished(directory):
        return
    code = place.command(_next(directory, words, place.words(name), going_on), name).end()
    require(code == 0, f"the run in {directory} ended with code {code}: see log.txt beside it")


def killed_sweep(place: Place, launcher: str, undisturbed: Mapping[str, Path], seed: int) -> Row:
    """A sweep of six jobs that is killed with all its processes, and repeated until it ends."""
    start, generator, kills, name = time.monotonic(), random.Random(seed), 0, f"sweep {launcher}"  # noqa: S311
    words = ["-m", *sweep_words(), *LAUNCHERS[launcher].split()]
    code = -1
    for turn in range(SWEEP_KILLS + MOST_TRIES):
        places = [*place.words(name)[:2], f"hydra.sweep.dir={place.folder / name / str(turn)}"]
        command = place.command([*words, *places], name)
        if turn < SWEEP_KILLS:
            begun = 1 + 2 * turn + generator.randrange(2)
            kills += command.kill_at(jobs_begun(place.folder / name, begun, generator.random()))
            continue
        code = command.end()
        if code == 0:
            break
    require(code == 0, f"the sweep ended with code {code}: see {place.folder / name}")
    found = Comparison()
    ends = finished(place.store(name))
    for key, directory in undisturbed.items():
        if key in ends:
            found.add(compared(ends[key], directory, place.store(name)))
        else:
            found.add(Comparison(False, False, 0))
    extra = finished_runs(place.store(name)) - len(undisturbed)
    found.add(Comparison(doubled=max(0, extra)))
    return Row.of(f"sweep of {len(undisturbed)} jobs, launcher {launcher}", kills, found, start)


def installed_launchers() -> list[str]:
    """The launchers of the sweeps, without those whose package is not installed."""
    return [name for name in LAUNCHERS if name not in EXTRAS or find_spec(EXTRAS[name])]


def sweep_words() -> list[str]:
    """The overrides of the sweep, of which ``JOBS`` vary."""
    fixed = f"{SMALL} {EVERYTHING} training.epochs=null training.max_steps={STEPS // 2}"
    return [*JOBS, *fixed.split()]


def undisturbed_sweep(place: Place) -> dict[str, Path]:
    """The run directories of the sweep that nothing disturbs, by config fingerprint."""
    name = "sweep undisturbed"
    places = [*place.words(name)[:2], f"hydra.sweep.dir={place.folder / name / '0'}"]
    code = place.command(["-m", *sweep_words(), *places], name).end()
    require(code == 0, f"the sweep ended with code {code}: see {place.folder / name}")
    return finished(place.store(name))


def finished(store: Path) -> dict[str, Path]:
    """The directories of the finished runs of a ledger, by config fingerprint."""
    return {
        entry.fingerprint: Path(entry.directory)
        for entry in ledger.entries(store)
        if ledger.is_finished(Path(entry.directory))
    }


def finished_runs(store: Path) -> int:
    """How many runs of a ledger are finished."""
    return sum(ledger.is_finished(Path(entry.directory)) for entry in ledger.entries(store))
