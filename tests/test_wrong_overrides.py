"""A thousand wrong commands: each is refused in one bounded line, and writes nothing."""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra._internal import config_loader_impl, config_repository, defaults_list
from hydra._internal.hydra import Hydra

import contradictions
import wrong_commands
from unroll import app
from wrong_commands import Command

ROOT = Path(__file__).parents[1]
LINE = 400
"""Characters of a line that refuses, with its newline."""


def chosen() -> dict[str, list[Command]]:
    """Commands by what is wrong with them; the same ones in every run."""
    chance = random.Random(9)

    def some(commands: Iterator[Command], count: int) -> list[Command]:
        distinct = list(dict.fromkeys(commands))
        return chance.sample(distinct, min(count, len(distinct)))

    kinds = {
        "value": some(wrong_commands.wrong_values(), 380),
        "unknown key": some(wrong_commands.unknown_keys(chance), 160),
        "unknown option": some(wrong_commands.unknown_options(chance), 70),
        "other option": some(wrong_commands.keys_of_other_options(), 60),
        "odd value": some(wrong_commands.odd_signs(chance), 80),
        "odd word": some(wrong_commands.odd_words(), 170),
        "contradiction": contradictions.commands(contradictions.CONTRADICTIONS),
        "hydra": contradictions.commands(contradictions.HYDRA),
    }
    alone = [command for commands in kinds.values() for command in commands]
    plain = [words for words in alone if not any(word.startswith("-") for word in words)]
    return kinds | {"several": some(wrong_commands.several(plain, chance), 40)}


CHOSEN = chosen()
COMMANDS = [
    pytest.param(command, id=f"{kind} {number}")
    for kind, commands in CHOSEN.items()
    for number, command in enumerate(commands)
]


class Accepted(BaseException):
    """A command that is right: it would have started its task."""


@pytest.fixture(scope="module", autouse=True)
def quick_composition() -> Iterator[None]:
    """Hydra composes twice for each command, and reads the same files for each. Here it reads a
    file once, and composes the same choice of options once. ``test_a_process...`` compares with
    commands that compose as they always do."""
    read = config_repository.ConfigRepository.load_config
    listed = defaults_list._create_defaults_list
    merged = config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list
    kept: dict[str, Any] = {}

    def once(key: str, make: Callable[[], Any]) -> Any:
        if key not in kept:
            kept[key] = make()
        return copy.deepcopy(kept[key])

    def load(self: Any, config_path: str) -> Any:
        places = [source.path for source in self.get_sources()]
        return once(f"{places} {config_path}", lambda: read(self, config_path))

    def listing(repo: Any, name: Any, overrides: Any, **flags: bool) -> Any:
        def state() -> dict[str, Any]:
            return {
                key: value for key, value in vars(overrides).items() if key != "config_overrides"
            }

        places = [source.path for source in repo.get_sources()]
        key = f"{places} {name} {flags} {state()}"
        found, after = once(key, lambda: (listed(repo, name, overrides, **flags), state()))
        vars(overrides).update(after)
        return found

    def merging(self: Any, defaults: Any, repo: Any) -> Any:
        return once(repr(defaults), lambda: merged(self, defaults, repo))

    def shared(self: Any, delegate: Any) -> None:
        self.delegate, self.cache = copy.copy(delegate), {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_repository.CachingConfigRepository, "__init__", shared)
        patch.setattr(config_repository.ConfigRepository, "load_config", load)
        patch.setattr(defaults_list, "_create_defaults_list", listing)
        loader = config_loader_impl.ConfigLoaderImpl
        patch.setattr(loader, "_compose_config_from_defaults_list", merging)
        patch.setattr(Hydra, "get_mode", lambda self, config_name, overrides: None)
        yield


@pytest.fixture
def refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Command], str]:
    """The line of a command that must be refused."""

    def started(*arguments: Any, **keywords: Any) -> None:
        raise Accepted

    monkeypatch.setattr("unroll.app.dispatch", started)
    monkeypatch.setattr("unroll.config.HOME", tmp_path)
    monkeypatch.setattr("sys.argv", ["unroll"])
    monkeypatch.chdir(tmp_path)

    def refusal_(words: Command) -> str:
        try:
            code: Any = app.command(list(words))
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        assert (code, printed.out) == (2, "")
        assert list(tmp_path.iterdir()) == []
        return checked(printed.err)

    return refusal_


def checked(printed: str) -> str:
    """The one bounded line that was printed."""
    assert printed.startswith("unroll: ")
    assert printed.endswith("\n")
    assert len(printed) <= LINE
    assert printed[:-1].isprintable()
    return printed


def test_there_are_more_than_a_thousand_wrong_commands(
    record_property: Callable[[str, object], None],
) -> None:
    distinct = {command for commands in CHOSEN.values() for command in commands}
    record_property("wrong commands", len(distinct))
    print({kind: len(commands) for kind, commands in CHOSEN.items()}, "distinct:", len(distinct))
    assert len(distinct) >= 1000


@pytest.mark.parametrize("words", COMMANDS)
def test_a_wrong_command_is_refused_in_one_bounded_line_and_writes_nothing(
    refusal: Callable[[Command], str], words: Command
) -> None:
    refusal(words)


@pytest.mark.parametrize(
    "key",
    ["model.hidden_size", "data.batching.length", "optimizer.learning_rate", "tracking.every"],
)
@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_misspelt_key_is_answered_with_the_nearest_one(
    refusal: Callable[[Command], str], key: str, prefix: str
) -> None:
    parent, _, last = key.rpartition(".")
    assert f"did you mean '{last}'?" in refusal((f"{prefix}{parent}.{last[:-1]}=1",))


@pytest.mark.parametrize("kind", [kind for kind in CHOSEN if kind != "odd word"])
def test_a_process_prints_the_same_line_as_the_command_in_this_one(
    refusal: Callable[[Command], str], tmp_path: Path, kind: str
) -> None:
    words = random.Random(kind).choice(
        [c for c in CHOSEN[kind] if not {"\x00", "\ud800"} & set("".join(c))]
    )
    line = refusal(words)
    done = subprocess.run(
        [sys.executable, "-m", "unroll", *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert checked(done.stderr) == line
    assert list(tmp_path.iterdir()) == []
