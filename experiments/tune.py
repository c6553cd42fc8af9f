"""Tune before you compare (Melis et al. 2018): ``make tune``.

Every model gets the same trials of the learning rate, each trained as the studies train, with one
seed. The best of each by validation perplexity is written to ``conf/experiment/study/news/``, with
``FULL=1`` to ``conf/experiment/study/``, from where the studies take it. Trials that finished
before are not run again.

FULL=1       tune on the text of ``make reproduce FULL=1``
JOBS=2       jobs at a time, by default one for each core
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from experiments import study
from experiments.command import jobs_at_a_time, run_command
from experiments.running import Session
from experiments.study import Results, Study
from unroll import overlay
from unroll.errors import FAILED
from unroll.folders import CONF, OVERLAYS

MODELS = ("rnn", "lstm", "gru", "transformer")
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3)
SEED = 1
COMMENT = """\
Chosen by `make tune{full}` on {corpus}: the best of {trials} trials of {epochs} epochs by
validation perplexity, {perplexity:.1f}; learning rates {rates}."""


def label(model: str, rate: float) -> str:
    """Of one trial."""
    return f"{model}, learning rate {rate:g}"


TRIALS = {
    (model, rate): f"{study.tuned(model)} optimizer.learning_rate={rate:g}"
    for model in MODELS
    for rate in RATES
}
STUDY = Study(
    "tune",
    study.grid(
        study.PROFILE, {label(*trial): words for trial, words in TRIALS.items()}, seeds=(SEED,)
    ),
    (),
)


def reached(results: Results, trial: tuple[str, float]) -> float:
    """The best validation perplexity of a trial."""
    return min(value for _, value in results[label(*trial)][0].curve("valid/perplexity"))


def write_chosen(results: Results, model: str, folder: Path) -> str:
    """Write the overlay of a model's best trial; its text."""
    trials = [trial for trial in TRIALS if trial[0] == model]
    best = min(trials, key=lambda trial: reached(results, trial))
    comment = COMMENT.format(
        full=" FULL=1" if study.FULL else "",
        corpus=study.CORPUS,
        trials=len(trials),
        epochs=results[label(*best)][0].params["training.epochs"],
        perplexity=reached(results, best),
        rates=", ".join(f"{rate:g}" for rate in RATES),
    )
    words = [
        f"experiment={study.CHOSEN}/_study",
        f"model={model}",
        f"optimizer.learning_rate={best[1]:g}",
    ]
    return overlay.write(folder / f"{model}.yaml", comment, words)


def tune(extra: list[str]) -> int:
    """Run the trials and write the overlays; the exit code."""
    start = time.monotonic()
    session = Session(extra, jobs_at_a_time())
    results = session.run([STUDY])
    if failure := session.failures.get(STUDY.name):
        print(f"tune: {failure.reason}", file=sys.stderr)
        return failure.code or FAILED
    for model in MODELS:
        print(write_chosen(results[STUDY.name], model, CONF / OVERLAYS / study.CHOSEN))
    print(f"tune: {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    run_command("tune", lambda: tune(sys.argv[1:]), "finished trials will be reused")
