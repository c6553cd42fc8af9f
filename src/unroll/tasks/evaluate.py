"""Score a split, or a text file, with a trained run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from unroll.config import Config, require_adaptable
from unroll.data.token_stream import TokenStream
from unroll.errors import require
from unroll.evaluation.context import scores_by_context
from unroll.evaluation.perplexity import Score, score
from unroll.registry import build
from unroll.tasks.adapted import adapted_score, mixed_runs
from unroll.tasks.config import TaskConfig
from unroll.tasks.run import Result, require_empty, say, write_result
from unroll.tasks.trained import load_run, names_corpus
from unroll.tracking.tracker import Tracker


def evaluate(
    task: TaskConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Score a split, or a text file, with a trained run."""
    require_empty(directory)
    tracker: Tracker = build("tracking", config.tracking)
    trained = load_run(config.run, config, overrides)
    encoded = trained.encode(config, overrides)
    split = "text" if config.evaluation.text else config.evaluation.split
    require(
        split in encoded.streams,
        f"evaluation.split={split}: the corpus has no such split; available: "
        f"{', '.join(encoded.streams)}",
    )
    stream, unknown = encoded.streams[split], trained.vocabulary.unknown
    result: Result = {"task": "evaluate", "run_id": trained.run_id}
    if config.evaluation.adaptation:
        require_adaptable(trained.model.config, config.evaluation)
        others = mixed_runs(config, trained.tokenizer, trained.vocabulary)

        def own() -> Mapping[str, TokenStream]:
            other_text = config.evaluation.text is not None or names_corpus(overrides)
            read = trained.read(trained.data, config.data.cache) if other_text else encoded
            return read.streams

        adapted = adapted_score(trained.model, others, config, unknown, stream, own)
        found, way = adapted.score, adapted.way
        result["mixture_weights"] = adapted.weights
    else:
        found = score(trained.model, stream, config.evaluation, unknown)
        way = found.protocol
    contexts = []
    if config.evaluation.contexts is not None:
        contexts = scores_by_context(trained.model, stream, config.evaluation)
        result["contexts"] = [asdict(each) | {"perplexity": each.perplexity} for each in contexts]
    result |= {"protocol": way} | found.figures() | {"tokens_per_second": found.tokens_per_second}
    write_result(directory, result)
    say(f"{split} with protocol {way}: {figures_line(found)}")
    for each in contexts:
        back = "the whole text" if each.context is None else f"the last {each.context}"
        say(
            f"context {back}: perplexity {each.perplexity:.2f}, {each.nats_per_token:.4f} nats per "
            f"token, {each.tokens:,} tokens"
        )
    if tracker.extend(directory, trained.run_id):
        place = f"{split}/{way}"
        place = f"int8/{place}" if config.precision == "int8" else place
        tracker.log(
            {f"{place}/{key}": float(value) for key, value in found.figures().items()},
            trained.step,
        )
        for each in contexts:
            if each.context is None:
                tracker.log({f"{split}/context_whole/perplexity": each.perplexity}, trained.step)
            else:  # a curve over the number of tokens
                tracker.log({f"{split}/context/perplexity": each.perplexity}, each.context)
        tracker.close()  # and not finish: the run's status and times stay
    return result


def figures_line(found: Score) -> str:
    """A score in one line."""
    return (
        f"perplexity {found.perplexity:.2f}, {found.nats_per_token:.4f} nats per token, "
        f"{found.bits_per_character:.3f} bits per character, {found.tokens:,} tokens, "
        f"{100 * found.unknown_rate:.1f}% unknown, {found.tokens_per_second:,.0f} tokens per second"
    )
