"""Let a trained run go on from a prefix."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from unroll.config import Config
from unroll.generation import sampler
from unroll.registry import build
from unroll.tasks.config import TaskConfig
from unroll.tasks.run import Result, require_empty, write_result
from unroll.tasks.samples import default_prefixes, sample_text, show_samples
from unroll.tasks.trained import load_run
from unroll.tracking.store import Tracker


def sample(
    task: TaskConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Let a trained run go on from a prefix."""
    require_empty(directory)
    trained = load_run(config.run, config, overrides)
    prefixes = config.sampling.prefixes
    if prefixes is None:
        prefixes = default_prefixes(config, trained.encode(config, overrides))
    found = sampler.sample(
        trained.model,
        trained.tokenizer,
        trained.vocabulary,
        prefixes,
        config.sampling,
        trained.data.batching.length,
    )
    result: Result = {"task": "sample", "run_id": trained.run_id}
    result |= {"samples": [asdict(item) for item in found.samples]}
    result |= {"tokens_per_second": found.tokens_per_second}
    tracker: Tracker = build("tracking", config.tracking)
    if tracker.resume(trained.run_id):
        tracker.log_text(
            sample_text(found), f"samples/{directory.parent.name}-{directory.name}.txt"
        )
        tracker.finish()
    write_result(directory, result)
    show_samples(found)
    return result
