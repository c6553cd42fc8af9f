"""Size, speed and scores of a trained run in float32 and in int8."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from unroll.config import Config
from unroll.data.token_stream import TokenStream
from unroll.errors import require
from unroll.evaluation.perplexity import score
from unroll.generation.footprint import PRECISIONS, export, load, measure
from unroll.models.language_model import LanguageModel
from unroll.models.quantized import require_quantizable
from unroll.tasks.config import DeployConfig
from unroll.tasks.run import Result, Run, say
from unroll.tasks.trained import Trained, chosen_corpus, load_run

Figures = dict[str, Any]


def deploy(
    task: DeployConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Write a run's weights in each precision; measure their size and speed, score with them."""
    trained = load_run(config.run, config, overrides)
    require_quantizable(trained.model.config, "task", "deploy")
    config = identified(config, trained, overrides)
    run = Run(config, directory, overrides)
    found = run.finished_before(reuse)
    if found:
        return found
    encoded = trained.encode(config, overrides)
    require(
        "test" in encoded.streams,
        f"data={config.data.name} has no test split: give another corpus with data=",
    )
    test = opening(encoded.streams["test"], task.tokens)
    model = cast(LanguageModel, trained.model.cpu())  # no other model is quantizable
    precisions: dict[str, Figures] = {}
    with run.recorded({"model.parameters": model.parameter_count}, encoded) as tracker:
        tracker.tag("run_of", trained.run_id)
        for precision in PRECISIONS:
            path = directory / f"{precision}.safetensors"
            export(path, model, precision)
            footprint = measure(path, task.warm_up, task.timed)
            scored = score(load(path), test, config.evaluation, trained.vocabulary.unknown)
            precisions[precision] = asdict(footprint) | {"model_bytes": footprint.model_bytes}
            precisions[precision] |= scored.figures()
            say(f"{precision}: {figures_line(precisions[precision])}")
        result = run.keep(
            {
                "run_of": trained.run_id,
                "model": model.config.name,
                "parameters": model.parameter_count,
                "protocol": config.evaluation.protocol,
                "precisions": precisions,
            },
            {
                f"{precision}/{key}": float(value)
                for precision, figures in precisions.items()
                for key, value in figures.items()
            },
        )
    return result


def identified(config: Config, trained: Trained, overrides: list[str]) -> Config:
    """The config with the model, the corpus and the checkpoint that ``run=`` names, as parts of
    its fingerprint."""
    return replace(
        config,
        run=f"{trained.run_id} at step {trained.step}",
        model=trained.model.config,
        data=replace(chosen_corpus(trained, config, overrides), cache=config.data.cache),
    )


def opening(stream: TokenStream, tokens: int) -> TokenStream:
    """The first ``tokens`` of a stream; a document that is cut ends there."""
    if tokens >= len(stream):
        return stream
    offsets = np.append(stream.offsets[stream.offsets < tokens], tokens)
    characters = round(stream.characters * tokens / len(stream))
    return TokenStream(stream.tokens[:tokens], offsets, characters)


def figures_line(figures: Figures) -> str:
    """What a precision costs and scores, in one line."""
    return (
        f"{figures['bytes'] / 1e6:.1f} MB on disk, {figures['model_bytes'] / 1e6:.1f} MB resident "
        f"(beside {figures['baseline_bytes'] / 1e6:.0f} MB of PyTorch), "
        f"{figures['milliseconds_per_token']:.3f} ms per token, "
        f"perplexity {figures['perplexity']:.2f}"
    )
