"""The configs of jobs, kept on disk: Hydra takes a third of a second for each, and a report is made
of more than a hundred."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from joblib import Parallel, delayed

import unroll
from unroll.app import compose
from unroll.config import Config, restored
from unroll.errors import redacted
from unroll.folders import CONF, HOME, write_atomically

SEED = re.compile(r"seed=\d+")


def composed(words: Sequence[str]) -> Config:
    """The config of a job: jobs that differ only in the seed are composed once.

    Raises:
        Refused: as the command line would.
    """
    config = _composed(_unseeded(words))
    seeds = [int(word.removeprefix("seed=")) for word in words if SEED.fullmatch(word)]
    if not seeds:
        return config
    sampling = config.sampling
    if sampling.seed == 0:  # it follows, unless the job sets it
        sampling = replace(sampling, seed=seeds[-1])
    return replace(config, seed=seeds[-1], sampling=sampling)


def compose_ahead(jobs: Iterable[Sequence[str]], parallel: int) -> None:
    """Compose the configs of jobs that are not kept yet, ``parallel`` at a time; not so few that
    they are composed before the processes have begun."""
    every = {tuple(_unseeded(words)) for words in jobs}
    missing = [words for words in sorted(every) if not _place(words).is_file()]
    if len(missing) > parallel:
        Parallel(n_jobs=parallel)(delayed(_tried)(words) for words in missing)


def _tried(words: Sequence[str]) -> None:
    """Compose; what cannot be is told where the config is asked for."""
    with contextlib.suppress(Exception):
        _composed(words)


def _unseeded(words: Sequence[str]) -> list[str]:
    """The words with one seed in place of any."""
    kept = [word for word in words if not SEED.fullmatch(word)]
    return kept if len(kept) == len(words) else [*kept, "seed=0"]


def _composed(words: Sequence[str]) -> Config:
    place = _place(words)
    if place.is_file():
        return restored(json.loads(place.read_text(encoding="utf-8")))
    config = compose([*words, "threads=1"])
    text = json.dumps(asdict(config))
    if text == redacted(text):  # a config with a secret in it is composed each time
        write_atomically(place, text)
    return config


def _place(words: Sequence[str]) -> Path:
    """The file of a config."""
    recipe = repr((list(words), str(HOME), _schema())).encode()
    digest = hashlib.blake2b(recipe, digest_size=16)
    return HOME / ".cache" / "composed" / f"{digest.hexdigest()}.json"


@functools.cache
def _schema() -> str:
    """A hash of everything that decides what an override means."""
    digest = hashlib.blake2b()
    package = Path(unroll.__file__).parent
    sources = [*package.rglob("config.py"), package / "overrides.py", package / "registry.py"]
    for path in sorted([*CONF.rglob("*.yaml"), *sources]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
