"""Train a model, score the test split with its best checkpoint, generate text."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from unroll.config import Config, recipe
from unroll.data.token_stream import Encoded, encode
from unroll.errors import Diverged, LostProcess, Terminated, require
from unroll.evaluation.gradient_flow import gradient_flow
from unroll.evaluation.perplexity import require_scorable
from unroll.generation.sampler import sample
from unroll.registry import build, target
from unroll.tasks.adapted import adapted_score, mixed_runs, require_split
from unroll.tasks.callbacks import RunCallbacks, ShouldStop, Validation, restore_best
from unroll.tasks.config import TaskConfig
from unroll.tasks.memory import enough_memory
from unroll.tasks.resume import cut_off_training, named_training, share_state
from unroll.tasks.run import RESULT, Result, Run, device, prepare, resolved, say
from unroll.tasks.samples import chosen_prefixes
from unroll.tasks.training_result import (
    final_figures,
    keep_artifacts,
    pruned_result,
    show_text,
    show_training,
    training_result,
    warn_of_unknown,
)
from unroll.tracking import ledger
from unroll.training.config import require_validation_split
from unroll.training.learner import Learner, Silent
from unroll.training.parallel import OneProcess, connect, remember, remembered
from unroll.training.saved_state import Saved

GRADIENT_SEQUENCES = 64
"""Sequences over which the gradient flow is averaged."""


def train(
    task: TaskConfig,
    config: Config,
    directory: Path,
    overrides: list[str],
    reuse: bool,
    should_stop: ShouldStop | None = None,
) -> Result:
    """Train a model, score the test split with its best checkpoint, generate text.

    With ``config.resume`` a training that was started before goes on. With ``reuse`` a job of a
    multirun or study does the same if it was cut off; one that has finished is not run again, and
    one that another process is running is left to it. If ``should_stop`` says so, the training is
    pruned: it ends early, as KILLED, and is neither scored nor reused, but can go on.

    Raises:
        Refused: the config does not fit the corpus, a batch does not fit into memory, or the
            processes of ``torchrun`` have other configs.
        LostProcess: one of them has ended.
        Diverged: the loss or the gradient is NaN or infinite.
        KeyboardInterrupt: the training was interrupted; its result is written all the same.
        Terminated: SIGTERM ended it; its state is kept.
    """
    should_stop = should_stop or Silent().should_stop
    processes = connect(device(config))
    require_same(config, processes)
    if processes.rank > 0:
        return follow(processes)
    if not reuse or config.resume is not None:
        result = carry_out(*begin(config, directory, overrides, processes), processes, should_stop)
        processes.close()
        return result
    run = Run(config, directory, overrides)
    with ledger.claimed(Path(config.tracking.directory), run.fingerprint) as claimed:
        if not claimed:
            say(f"{run.name} is being run by another process, and is left to it")
            return {"task": task.name, "run_id": None, "elsewhere": True}
        reused = run.finished_before(reuse)
        if reused is not None:
            return reused
        cut_off = cut_off_training(run)
        if cut_off is None:
            return carry_out(run, None, processes, should_stop)
        result = carry_out(*cut_off, processes, should_stop)
        run.tracker.reuse(run.fingerprint)  # it is a child of the multirun that was cut off
        return result


def require_same(config: Config, processes: OneProcess) -> None:
    """Raise ``Refused`` in every process if one has another config, corpus or source code."""
    if processes.size == 1:
        return
    own = recipe(resolved(config), build("data", config.data).fingerprint())
    first, *others = processes.all(own)
    for rank, other in enumerate(others, 1):
        for key, value in first.items():
            require(
                key in other and other[key] == value,
                f"the processes differ in {key}: {value} in the first, {other.get(key)} in process "
                f"{rank}: start all with the same command, text and version of Unroll",
            )


def begin(
    config: Config, directory: Path, overrides: list[str], processes: OneProcess
) -> tuple[Run, Saved | None]:
    """The run of this command and the state that it goes on from; the other processes, which look
    for nothing, are told. What ``torchrun`` started again goes on with the run that it began."""
    begun = remembered()
    try:
        if begun is not None:
            run, saved = named_training(replace(config, resume=str(begun)), [])
        elif config.resume is not None:
            run, saved = named_training(config, overrides)
        else:
            run, saved = Run(config, directory, overrides), None
    except Exception as error:
        processes.tell(error)
        raise
    processes.tell((run.config, None if saved is None else saved.state))
    return run, saved


def follow(processes: Any) -> Result:
    """Train in another process than the first, which says and writes what becomes of the run."""
    config, state = processes.hear()
    encoded = encode(config.data, build("data", config.data))
    config = replace(config, model=config.model.fitted(encoded.counts))
    model = initial_model(config, encoded)
    learner: Learner = target("learner", config.model.name).from_config(
        config,
        model,
        encoded.streams["train"],
        Validation(config, model, encoded, processes),
        processes,
    )
    if state is not None:
        learner.load_state_dict(state)
    with (
        suppress(Diverged, KeyboardInterrupt),
        enough_memory(config, model, encoded.streams["train"]),
    ):
        learner.fit()
    processes.wait_for_first()
    processes.close()
    return {"task": config.task.name, "run_id": None}


def carry_out(
    run: Run, saved: Saved | None, processes: OneProcess, should_stop: ShouldStop
) -> Result:
    """Train from the start or from a saved state, score, generate text; see ``train``."""
    config, directory = run.config, run.directory
    encoded = encode(config.data, build("data", config.data))
    vocabulary = encoded.vocabulary
    config = run.config = replace(config, model=config.model.fitted(encoded.counts))
    require_splits(config, encoded)
    show_text(config, encoded)
    prefixes = chosen_prefixes(config, encoded)
    others = mixed_runs(config, encoded.tokenizer, vocabulary)
    # after the other runs, whose weights are drawn before they are read
    model = initial_model(config, encoded)
    callbacks = RunCallbacks(run, model, encoded, processes, should_stop)
    learner: Learner = target("learner", config.model.name).from_config(
        config, model, encoded.streams["train"], callbacks, processes
    )
    warn_of_unknown(encoded)
    with run.recorded({"data.vocabulary_size": len(vocabulary)}, encoded) as tracker:
        callbacks.begin(saved)
        remember(directory)
        if saved is None:
            log_gradient_flow(run, model, encoded, "initial")
        else:
            learner.load_state_dict(saved.state)
        try:
            with enough_memory(config, model, encoded.streams["train"]):
                outcome = learner.fit()
        except (Terminated, LostProcess) as error:
            share_state(run)
            raise type(error)(f"{error}; unroll resume={directory} goes on") from error
        tracker.param("model.parameters", model.parameter_count)
        if outcome.pruned and not outcome.interrupted:
            run.prune()
            return run.keep(pruned_result(run, outcome), {}, outcome.steps)
        if outcome.interrupted:
            say("interrupted: the checkpoints are saved; scoring the best one")
            run.interrupt()
        restore_best(model, directory)
        log_gradient_flow(run, model, encoded, "trained")
        test, adapted = callbacks.score("test"), None
        if config.evaluation.adaptation and "test" in encoded.streams:
            streams = encoded.streams
            adapted = adapted_score(
                model, others, config, vocabulary.unknown, streams["test"], lambda: streams
            )
        length = config.data.batching.length
        samples = sample(model, encoded.tokenizer, vocabulary, prefixes, config.sampling, length)
        result = training_result(run, model, encoded, outcome, test, adapted, samples)
        result = run.keep(result, final_figures(outcome, test, adapted), outcome.steps)
        keep_artifacts(run, callbacks.header, outcome, samples)
        share_state(run)
    show_training(model, outcome, test, adapted, samples)
    say(f"run {tracker.run_id} ({run.name}): {directory / RESULT}")
    if outcome.interrupted:
        raise KeyboardInterrupt
    return result


def initial_model(config: Config, encoded: Encoded) -> Any:
    """The model on its device, with its weights drawn from the seed."""
    prepare(config)
    model = build("model", config.model, len(encoded.vocabulary), config.precision)
    return model.to(device(config))


def require_splits(config: Config, encoded: Encoded) -> None:
    """Raise ``Refused`` if a split cannot be scored, or a setting needs a split that is absent."""
    require_validation_split(config.training, config.optimizer, encoded.streams)
    for split in ("valid", "test"):
        if split in encoded.streams:
            require_scorable(encoded.streams[split], config.evaluation, split)
    require_split(config, encoded.streams)


def log_gradient_flow(run: Run, model: Any, encoded: Encoded, when: str) -> None:
    """Log how far back gradients flow, as a curve over the distance in steps, if
    ``evaluation.gradient_steps`` is set."""
    steps = run.config.evaluation.gradient_steps
    if steps is None:
        return
    stream = encoded.streams.get("valid", encoded.streams["train"])
    for distance, norm in enumerate(gradient_flow(model, stream, steps, GRADIENT_SEQUENCES)):
        run.tracker.log({f"gradient_flow/{when}": norm}, distance)
