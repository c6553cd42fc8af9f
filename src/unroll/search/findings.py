"""What a search found: the best trial as an overlay, and plots of all trials."""

from __future__ import annotations

import math
import shlex
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from unroll import overlay
from unroll.errors import Refused, redacted_value
from unroll.report.figures import Points, keep
from unroll.report.page import Drawing
from unroll.report.plots import bars, scatter
from unroll.report.runs import Measured
from unroll.search.config import FOUND, overlay_path
from unroll.search.study import Search
from unroll.tracking.multirun import Multirun

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LOSS = "validation loss (nats per token)"
FEWEST = 5
"""Complete trials without which the importance of a key says nothing."""


def report(search: Search) -> None:
    """Write the overlay of the best trial and the plots, and say how to run it.

    Raises:
        Refused: no trial has a validation loss.
    """
    trials = search.finished()
    ends = Counter(trial.state.name.lower() for trial in trials)
    counts = ", ".join(f"{count} {state}" for state, count in ends.items())
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not complete:
        raise Refused(
            f"search {search.name}: {counts}; none has a validation loss, so nothing was found: "
            "see why they failed, above"
        )
    best = min(complete, key=lambda trial: trial.value)
    loss = best.value
    assert loss is not None
    found = f"trial {best.number}, validation loss {loss:.4f}, perplexity {math.exp(loss):.2f}"
    print(f"\nsearch {search.name}: {len(trials)} trials ({counts}); best: {found}")
    print(f"  {' '.join(search.chosen(best))}")
    name = search.config.overlay
    path = search.folder / "experiment" / "best.yaml" if name is None else overlay_path(name)
    comment = f"{FOUND[2:]}, the best of {len(trials)} trials: {found}.\n" + "\n".join(
        ["Searched:", *(f"  {key.given}" for key in search.space.keys.values())]
    )
    words = redacted_value(search.space.words(best.params))
    overlay.write(path, comment, words)
    print(f"its overlay: {path}\nto run it:   {command(search.folder, name)}", flush=True)
    for drawing in drawings(search, trials):
        plot = search.folder / f"{drawing.name}.svg"
        keep(drawing.figure, plot)
        Multirun.keep(plot)


def command(folder: Path, name: str | None) -> str:
    """The command that runs the overlay of a search."""
    if name is not None:
        return f"unroll experiment={name}"
    return f"unroll --config-dir {shlex.quote(str(folder.resolve()))} experiment=best"


def drawings(search: Search, trials: list[FrozenTrial]) -> list[Drawing]:
    """The losses of the trials in their order, and which keys decided them, if that can be said."""
    found: dict[str, list[tuple[float, float]]] = {"best so far": [], "complete": [], "pruned": []}
    for trial in trials:
        loss = trial.value  # where it was pruned, the last
        if loss is None:
            continue
        found["pruned" if trial.state.name == "PRUNED" else "complete"].append((trial.number, loss))
        if found["complete"]:
            best = min(value for _, value in found["complete"])
            found["best so far"].append((trial.number, best))
    series: dict[str, Points] = {label: points for label, points in found.items() if points}
    caption = "The validation loss of each trial, of a pruned one where it stopped."
    plots = [scatter("history", caption, "trial", LOSS, series)]
    shares = importance(search) if len(found["complete"]) >= FEWEST else {}
    if shares:
        caption = "The share of each key in reaching the better trials, by PED-ANOVA."
        measures = {key: Measured((share,)) for key, share in shares.items()}
        plots.append(bars("importance", caption, "key", "importance (PED-ANOVA)", measures))
    return plots


def importance(search: Search) -> dict[str, float]:
    """The importance of each key by PED-ANOVA (Watanabe et al. 2023), which sums to 1; empty if the
    trials do not differ enough."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shares = get_param_importances(search.study, evaluator=PedAnovaImportanceEvaluator())
        except (RuntimeError, ValueError):
            return {}
    return {key: share for key, share in shares.items() if math.isfinite(share)}
