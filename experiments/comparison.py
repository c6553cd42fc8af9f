"""What every model makes of what every model wrote: the jobs that compare, and what they found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from experiments import study
from experiments.study import CELLS, SEEDS, Job, Results
from unroll.report.page import Text, linked
from unroll.report.runs import Measured, Record, mean_of, measured

NGRAM = "3-gram"
READERS = {"RNN": "rnn", "LSTM": "lstm", "GRU": "gru", NGRAM: "ngram"}
"""Labels, and the models that a result names."""
READ = "every model reads every model"
TEMPERATURES = (0.3, 0.5, 0.8, 1.0, 1.2, 1.5)
GREEDY = "greedy"
MODES = (GREEDY, *map(str, TEMPERATURES))
PEOPLE, TEST = "people", "test"
DOCUMENTS = 8 if study.FULL else 16
"""Documents of the test split that give a beginning: of Wikipedia it has nine."""
DIVERSITY = ("repetition", "distinct_1", "distinct_2", "distinct_3")


def compare(results: Results) -> tuple[Job, ...]:
    """A comparison for each seed."""
    ngram = results[NGRAM][0].run_id
    return tuple(
        Job(
            READ,
            (
                "task=compare",
                f"task.runs=[{','.join(results[cell][index].run_id for cell in CELLS)},{ngram}]",
                f"task.temperatures=[{','.join(map(str, TEMPERATURES))}]",
                "sampling.prefix=null",
                "sampling.prefix_length=10",
                f"sampling.prefix_documents={DOCUMENTS}",
                "sampling.samples=1",
                "sampling.length=50",
                "evaluation.protocol=document",
            ),
        )
        for index in range(len(SEEDS))
    )


class Matrix:
    """What the comparisons of all seeds found, by label instead of by run id."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self._found = {record.run_id: _by_label(record.result()) for record in records}

    def perplexity(self, reader: str, writer: str, mode: str | None = None) -> Measured:
        """Perplexity of a reader on what a writer wrote, a value for each seed."""
        return self._measured(lambda found: found["scores"][reader, writer, mode])

    def own(self, mode: str | None) -> Measured:
        """Perplexity on one's own text, or where ``mode`` is None on what people wrote: the mean
        over the cells."""
        return mean_of(self.perplexity(cell, cell if mode else PEOPLE, mode) for cell in CELLS)

    def diversity(self, key: str, mode: str | None, scale: float = 1.0) -> Measured:
        """A count of n-grams: of people where ``mode`` is None, else the mean over the cells."""
        writers = [PEOPLE] if mode is None else [*CELLS]
        return mean_of(
            self._measured(lambda found, writer=writer: scale * found["texts"][writer, mode][key])
            for writer in writers
        )

    def texts(self, chosen: Sequence[tuple[str, str | None]]) -> Text:
        """The first text that each of these writers wrote in a mode."""
        record = self.records[0]
        rows = []
        for cell, mode in chosen:
            found = self._found[record.run_id]["texts"][cell, mode]["samples"][0]
            who = linked(f"{cell}, {mode}" if mode else cell, [record.run_id])
            rows.append((who, found["prefix"], found["text"]))
        return Text(rows)

    def _measured(self, look: Callable[..., float]) -> Measured:
        return measured(self.records, lambda record: look(self._found[record.run_id]))


def _by_label(result: dict[str, Any]) -> dict[str, Any]:
    label = {model: name for name, model in READERS.items()}
    name = {run["run_id"]: label[run["model"]] for run in result["runs"]}
    return {
        "scores": {
            (name[item["reader"]], name.get(item["writer"], item["writer"]), item["mode"]): (
                _perplexity(item)
            )
            for item in result["scores"]
        },
        "texts": {
            (name.get(item["writer"], item["writer"]), item["mode"]): item
            for item in result["texts"]
        },
    }


def _perplexity(item: dict[str, Any]) -> float:
    """A result has null for what JSON cannot hold: nothing scored, or infinity."""
    if item["perplexity"] is None:
        return math.inf if item["tokens"] else math.nan
    return float(item["perplexity"])
