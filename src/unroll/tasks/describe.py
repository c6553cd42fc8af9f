"""Describe the text and the model of a config, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unroll.config import Config
from unroll.data import statistics, zipf
from unroll.data.statistics import Frequent, Statistics
from unroll.data.token_stream import encode
from unroll.data.vocabulary import Vocabulary
from unroll.data.zipf import RankFrequency
from unroll.models import parameters
from unroll.models.parameters import Layer
from unroll.registry import build, names
from unroll.tasks.config import DescribeConfig
from unroll.tasks.run import RESULT, Result, Run, say


def describe(
    task: DescribeConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Describe the text and the model of a config, without training."""
    run = Run(config, directory, overrides)
    found = run.finished_before(reuse)
    if found:
        return found
    encoded = encode(config.data, build("data", config.data))
    splits = {
        split: statistics.statistics(stream, encoded.vocabulary, task.window)
        for split, stream in encoded.streams.items()
    }
    laws = {
        name: zipf.rank_frequency(encoded.streams["train"], encoded.vocabulary, order)
        for name, order in zipf.ORDERS.items()
    }
    layers = model_layers(config.model.fitted(encoded.counts), len(encoded.vocabulary))
    show_vocabulary(encoded.vocabulary, splits["train"].most_frequent)
    show_splits(splits, task.window)
    show_laws(laws)
    show_layers(config.model.name, layers)
    result: Result = {
        "vocabulary_size": len(encoded.vocabulary),
        "splits": {split: asdict(found) for split, found in splits.items()},
        "zipf": {name: asdict(law) for name, law in laws.items()},
        "model": model_result(config.model.name, layers),
    }
    with run.recorded({"data.vocabulary_size": len(encoded.vocabulary)}, encoded) as tracker:
        result = run.keep(result, figures(splits, laws, layers))
    say(f"run {tracker.run_id} ({run.name}): {directory / RESULT}")
    return result


def model_layers(config: Any, vocabulary_size: int) -> list[Layer] | None:
    """The layers of a recurrent model; None for a model without layers."""
    if config.name not in names("cell/library"):
        return None
    return parameters.layers(config, vocabulary_size)


def model_result(name: str, layers: list[Layer] | None) -> dict[str, Any]:
    """The model's part of the result; null what only a model of layers has."""
    if layers is None:
        return {"name": name, "layers": None, "parameters": None, "parameters_with_one_bias": None}
    return {
        "name": name,
        "layers": [asdict(layer) | {"parameters": layer.parameters} for layer in layers],
        "parameters": sum(layer.parameters for layer in layers),
        "parameters_with_one_bias": sum(layer.parameters_with_one_bias for layer in layers),
    }


def figures(
    splits: dict[str, Statistics], laws: dict[str, RankFrequency], layers: list[Layer] | None
) -> dict[str, float]:
    """The metrics by which texts and models can be compared in the store."""
    found = {
        f"{split}/{key}": float(value)
        for split, figures in splits.items()
        for key, value in vars(figures).items()
        if isinstance(value, int | float)
    }
    found |= {f"zipf/{name}": law.fit.exponent for name, law in laws.items()}
    if layers is not None:
        found["parameters"] = float(sum(layer.parameters for layer in layers))
    return found


def show_vocabulary(vocabulary: Vocabulary, frequent: list[Frequent]) -> None:
    """Print the number of tokens and the most frequent ones of the training split."""
    listed = ", ".join(f"{item.token!r} {item.id} ({item.count:,})" for item in frequent)
    say(
        f"vocabulary: {len(vocabulary):,} tokens; the most frequent, with ids (and counts):"
        f" {listed}"
    )


def show_splits(splits: dict[str, Statistics], window: int) -> None:
    """Print a table with a column for each split."""
    found = splits.values()
    rows = [
        ["documents", *(f"{item.documents:,}" for item in found)],
        ["characters", *(f"{item.characters:,}" for item in found)],
        ["tokens", *(f"{item.tokens:,}" for item in found)],
        ["distinct tokens", *(f"{item.types:,}" for item in found)],
        ["unknown tokens", *(f"{item.unknown_rate:.2%}" for item in found)],
        ["shortest document, in tokens", *(f"{item.lengths.minimum:,}" for item in found)],
        ["lower quartile", *(f"{item.lengths.lower_quartile:,.1f}" for item in found)],
        ["median", *(f"{item.lengths.median:,.1f}" for item in found)],
        ["mean", *(f"{item.lengths.mean:,.1f}" for item in found)],
        ["upper quartile", *(f"{item.lengths.upper_quartile:,.1f}" for item in found)],
        ["longest document", *(f"{item.lengths.maximum:,}" for item in found)],
        [f"longer than {window} tokens", *(f"{item.longer_documents:,}" for item in found)],
        ["share of documents", *(f"{item.longer_rate:.2%}" for item in found)],
        [f"windows of {window}, one target each", *(f"{item.windows:,}" for item in found)],
        ["share of tokens that are targets", *(f"{item.target_rate:.2%}" for item in found)],
    ]
    say(aligned(["the text", *splits], rows))


def show_laws(laws: dict[str, RankFrequency]) -> None:
    """Print a table of Zipf's law for n-grams, with a row for each n."""
    rows = [
        [
            name,
            f"{law.occurrences:,}",
            f"{law.distinct:,}",
            f"{law.once:,}",
            f"{law.fit.exponent:.3f}",
            f"{law.fit.first_rank:,} to {law.fit.last_rank:,}",
        ]
        for name, law in laws.items()
    ]
    head = ["Zipf's law, training split", "n-grams", "distinct", "once", "exponent", "at ranks"]
    say(aligned(head, rows))


def show_layers(name: str, layers: list[Layer] | None) -> None:
    """Print a table with a row for each layer of the model."""
    if layers is None:
        say(f"model: {name}, its parameters are known after training")
        return
    rows = [
        [
            layer.layer,
            " + ".join("x".join(map(str, shape)) for shape in layer.shapes.values()),
            f"{layer.parameters:,}",
        ]
        for layer in layers
    ]
    total = sum(layer.parameters for layer in layers)
    one_bias = sum(layer.parameters_with_one_bias for layer in layers)
    rows.append(["total", f"with one bias vector a layer: {one_bias:,}", f"{total:,}"])
    say(aligned(["model", "shapes", "parameters"], rows))


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts in columns, the first aligned left and the others right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in (head, *rows)
    ]
    return "\n".join(["", *lines])
