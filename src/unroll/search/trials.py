"""Carry out a search: its trials as jobs of a multirun, then what they found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from unroll.search.findings import report
from unroll.search.space import Space
from unroll.search.study import RUN, Search
from unroll.sweep import POLL_SECONDS, Note
from unroll.tracking.multirun import Multirun

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from hydra_plugins.unroll_search import OptunaSweeper


def carry_out(sweeper: OptunaSweeper, arguments: list[str]) -> None:
    """Run the trials that are left, in batches as large as the launcher runs at a time, and report
    what all of them found.

    Args:
        arguments: the overrides of the command line.

    Raises:
        Refused: as ``Search``; or no trial has a validation loss.
    """
    config, launcher = sweeper.config, sweeper.launcher
    assert config is not None
    assert launcher is not None
    space = Space.of(OverridesParser.create().parse_overrides(arguments))
    search = Search(sweeper.search_config, space, Path(config.tracking.directory))
    size, jobs = at_a_time(config.hydra.launcher), 0
    with search.claimed():
        before = search.finished()
        left = max(0, search.config.n_trials - len(before))
        print(f"search {search.name}: {len(before)} trials finished before, {left} left")
        Multirun.adopt(trial.user_attrs[RUN] for trial in before if RUN in trial.user_attrs)
        while trials := search.next_trials(size):
            words = [job_words(search, trial) for trial in trials]
            returned = launcher.launch(words, initial_job_idx=jobs)
            jobs += len(trials)
            ends: list[tuple[Note, Any]] = [item.return_value for item in returned]
            for trial, (note, result) in zip(trials, ends, strict=True):
                search.tell(trial.number, note, result)
                if result is not None and result.get("resumed_at") is not None:
                    Multirun.adopt([result["run_id"]])  # it was a child of the earlier command
                print(f"{told(search, trial.number)} ({' '.join(search.chosen(trial))})")
            if all(note.outcome == "elsewhere" for note, _ in ends):
                time.sleep(POLL_SECONDS)
        report(search)


def told(search: Search, number: int) -> str:
    """What became of a trial, in a line."""
    trial = search.study.get_trials(deepcopy=False)[number]
    loss = f", validation loss {trial.value:.4f}" if trial.value is not None else ""
    return f"trial {number}: {trial.state.name.lower()}{loss}"


def job_words(search: Search, trial: FrozenTrial) -> list[str]:
    """The overrides of the job of a trial, and for Hydra where the job reports to."""
    storage = QuotedString(search.url, Quote.single).with_quotes()
    return [
        *search.space.words(trial.params),
        f"hydra.sweeper.trial={trial.number}",
        f"hydra.sweeper.study_name={search.name}",
        f"hydra.sweeper.storage={storage}",
    ]


def at_a_time(launcher: Any) -> int:
    """Jobs that a launcher runs at a time."""
    from joblib import effective_n_jobs

    return int(effective_n_jobs(launcher.get("n_jobs", 1)))
