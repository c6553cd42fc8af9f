"""Sample text from a trained run."""

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
from unroll.tracking.tracker import Tracker


def sample(
    task: TaskConfig, config: Config, directory: Path, overrides: list[str], reuse: bool
) -> Result:
    """Sample text from a trained run."""
    require_empty(directory)
    tracker: Tracker = build("tracking", config.tracking)
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
    write_result(directory, result)
    show_samples(found)
    if tracker.extend(directory, trained.run_id):
        tracker.log_text(
            sample_text(found), f"samples/{directory.parent.name}-{directory.name}.txt"
        )
        tracker.close()  # and not finish: the run's status and times stay
    return result
