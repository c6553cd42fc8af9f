"""Runs as the store would hold them: figures drawn at random, roles by overrides."""

from __future__ import annotations

import random
import re
from typing import Any

from experiments.study import Job, Results, Study

from experiments import comparison


class Stored:
    """A finished run. Its figures come from ``number`` alone, its place from its overrides."""

    def __init__(self, run_id: str, job: Job, number: int) -> None:
        self.run_id, self.number, self.overrides = run_id, number, job.overrides
        self.tags = {"overrides": " ".join(job.overrides), "git_commit": "0123456789abcdef"}
        self.params = {
            "data.name": "lee_news",
            "data.limit": "None",
            "data.batching.length": "35",
            "data.batching.batch_size": "64",
            "training.max_steps": "60",
            "model.hidden_size": "128",
            "data.vocabulary_size": "4000",
            "task.noise": "0.2",
            "task.points": "1000",
            "task.train_points": "600",
            "task.tau": "4",
            "task.hidden_size": "10",
        }

    def _draw(self, key: str) -> random.Random:
        return random.Random(f"{self.number} {key}")

    def value(self, key: str) -> float:
        if key in self.params:
            return float(self.params[key])
        draw = self._draw(key)
        if key == "model.parameters":
            return float(draw.randrange(1_100_000, 1_200_000))
        if "accuracy" in key or "rate" in key:
            return draw.uniform(0.05, 0.95)
        return draw.uniform(1, 9)

    def curve(self, key: str) -> list[tuple[float, float]]:
        draw = self._draw(key)
        count = 64 if key == "error/ahead" else 500
        return [(float(step), draw.uniform(1, 9)) for step in range(1, count + 1)]

    def result(self) -> dict[str, Any]:
        text = " ".join(self.overrides)
        if "task.runs" in text:
            return self._compared(re.findall(r"task\.runs=\[([^]]*)\]", text)[0].split(","))
        if "task=describe" in text:
            return self._described()
        draw = self._draw("result")
        sample = {"prefix": "a <unk> prefix", "text": "and on"}
        predictions = {f"ahead_{k}": [draw.uniform(-1, 1)] * 9 for k in (1, 4, 16, 64)}
        return {
            "samples": [sample, sample],
            "tokens": 100,
            "epochs": 2,
            "series": [draw.uniform(-1, 1) for _ in range(20)],
            "predictions": predictions | {"multi_step": [draw.uniform(-1, 1)] * 9},
        }

    def _compared(self, ids: list[str]) -> dict[str, Any]:
        draw, sample = self._draw("compare"), {"prefix": "a prefix", "text": "and on"}
        writers = [("people", None), *((run, mode) for run in ids for mode in comparison.MODES)]
        return {
            "runs": [
                {"run_id": run, "model": model}
                for run, model in zip(ids, comparison.READERS.values(), strict=True)
            ],
            "texts": [
                {"writer": writer, "mode": mode, "samples": [sample]}
                | {key: draw.uniform(0, 1) for key in comparison.DIVERSITY}
                for writer, mode in writers
            ],
            "scores": [
                {"reader": run, "writer": writer, "mode": mode, "perplexity": draw.uniform(50, 300)}
                for run in ids
                for writer, mode in [("test", None), *writers]
            ],
        }

    def _described(self) -> dict[str, Any]:
        draw = self._draw("describe")
        law = {"distinct": 90, "once": draw.randrange(90), "points": [(1, 50), (2, 20)]}
        law["fit"] = {"exponent": draw.uniform(0.3, 1), "scale": 60, "first_rank": 1}
        law["fit"]["last_rank"] = 2
        keys = ("minimum", "lower_quartile", "median", "mean", "upper_quartile", "maximum")
        split = {key: draw.randrange(10, 999) for key in ("documents", "tokens", "types")}
        split |= {"longer_documents": 3, "windows": 5, "window": 100}
        split |= {key: draw.random() for key in ("longer_rate", "target_rate", "unknown_rate")}
        split["lengths"] = {key: draw.randrange(1, 999) for key in keys}
        split["lengths"]["histogram"] = {"width": 10, "counts": [1, 2]}
        split["most_frequent"] = [{"token": "the", "id": 4, "count": draw.randrange(9)}]
        layer = {"layer": "rnn 1", "parameters": draw.randrange(9)}
        return {
            "vocabulary_size": 10,
            "splits": {"train": split, "test": split},
            "zipf": {name: law for name in ("unigrams", "bigrams", "trigrams")},
            "model": {"layers": [layer, {"layer": "softmax", "parameters": 40}]},
        }


def stored(study: Study, seed: int = 0) -> Results:
    """Results of a study; another ``seed`` gives the same numbers to other runs."""
    numbers = list(range(len(study.jobs) + 100))
    random.Random(seed).shuffle(numbers)
    results: Any = {}

    def add(jobs: tuple[Job, ...]) -> None:
        for job in jobs:
            made = Stored(f"run{sum(map(len, results.values()))}", job, numbers.pop())
            results.setdefault(job.label, []).append(made)

    add(study.jobs)
    if study.then is not None:
        add(study.then(results))
    return results
