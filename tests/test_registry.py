"""Names to classes, and values to the frozen configs beside them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, dataclass, replace

import pytest

from unroll import registry
from unroll.errors import Refused, require, require_one_of, unknown
from unroll.registry import build, names, register, restore


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    monkeypatch.setattr(registry, "_schemas", dict(registry._schemas))


@dataclass(frozen=True)
class KettleConfig:
    name: str
    litres: float

    def __post_init__(self) -> None:
        require(self.litres > 0, f"kettle.litres={self.litres}: above 0")


class Kettle:
    def __init__(self, config: KettleConfig, colour: str, *, lid: bool) -> None:
        self.config, self.colour, self.lid = config, colour, lid


def test_what_is_registered_is_built_with_its_config_and_the_arguments_given(own_registry):
    kept = register("kettle", "plain", builds=f"{__name__}:Kettle")(KettleConfig)
    config = KettleConfig("plain", 1.5)
    kettle = build("kettle", config, "red", lid=True)
    assert kept is KettleConfig
    assert type(kettle).__name__ == "Kettle"
    assert (kettle.config, kettle.colour, kettle.lid) == (config, "red", True)


def test_names_of_a_group_are_sorted_and_of_that_group_alone(own_registry):
    for name in ("plain", "copper", "electric"):
        register("kettle", name, builds=f"{__name__}:Kettle")(KettleConfig)
    assert names("kettle") == ["copper", "electric", "plain"]
    assert names("no such group") == []


def test_every_registered_name_builds_something_that_can_be_imported():
    import unroll.config  # noqa: F401  registers all there is

    assert registry._targets
    for target in registry._targets.values():
        module, _, attribute = target.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute)), target


def test_an_unknown_name_is_refused_with_the_nearest_and_all_known_ones(composed):
    with pytest.raises(Refused) as refused:
        build("model", replace(composed("model=lstm").model, name="ltsm"), 10)
    line = str(refused.value)
    assert line.startswith("unknown model 'ltsm': did you mean 'lstm'? known: ")
    assert line.partition("known: ")[2].split(", ") == names("model")
    assert {"gru", "lstm", "rnn"} <= set(names("model"))


def test_no_name_is_suggested_where_none_is_near():
    assert unknown("model", "zebra", ["rnn", "gru"]) == "unknown model 'zebra': known: gru, rnn"


def test_require_one_of_lets_the_allowed_pass_and_refuses_the_rest():
    require_one_of("device", "cpu", iter(["cpu", "cuda"]))
    with pytest.raises(Refused, match=r"unknown device 'gpu'.*known: cpu, cuda"):
        require_one_of("device", "gpu", iter(["cuda", "cpu"]))


CHOICES = [
    ("data", "data", ["ag_news", "lee_news", "penn_treebank", "text_files"]),
    ("data.tokenizer", "data/tokenizer", ["word", "character", "subword"]),
    ("data.batching", "data/batching", ["windows", "random", "sequential"]),
    ("model", "model", ["rnn", "lstm", "gru"]),
    ("optimizer", "optimizer", ["sgd", "adam", "adamw"]),
    ("optimizer.schedule", "optimizer/schedule", ["constant", "cosine", "step", "plateau"]),
]


@pytest.mark.parametrize(
    ("key", "group", "option"),
    [(key, group, option) for key, group, options in CHOICES for option in options],
)
def test_a_config_is_restored_from_its_values_equal_and_frozen(composed, key, group, option):
    needs_path = option in ("penn_treebank", "text_files")
    found = composed(f"{group}={option}", *(["data.path=x"] if needs_path else []))
    for part in key.split("."):
        found = getattr(found, part)
    back = restore(group, asdict(found))
    assert back == found
    assert type(back) is type(found)
    with pytest.raises(FrozenInstanceError):
        back.name = "other"


def test_restoring_refuses_a_key_that_the_config_does_not_have(composed):
    values = asdict(composed("model=lstm").model) | {"hidden_sise": 3}
    with pytest.raises(Refused, match="key in model 'hidden_sise': did you mean 'hidden_size'"):
        restore("model", values)


def test_restoring_refuses_a_key_of_a_nested_config(composed):
    values = asdict(composed().data)
    values["vocabulary"]["min_freq"] = 2
    with pytest.raises(Refused, match=r"min_freq.*min_frequency"):
        restore("data", values)


def test_restoring_refuses_values_that_lack_a_key_without_a_default(composed):
    values = asdict(composed("model=lstm").model)
    del values["hidden_size"]
    with pytest.raises(Refused, match=r"model.hidden_size is missing: add model.hidden_size="):
        restore("model", values)


def test_restoring_gives_a_missing_key_the_default_of_its_field(own_registry):
    @dataclass(frozen=True)
    class TeapotConfig:
        name: str
        colour: str = "brown"

    register("teapot", "plain", builds=f"{__name__}:Kettle")(TeapotConfig)
    assert restore("teapot", {"name": "plain"}) == TeapotConfig("plain", "brown")


def test_the_keys_that_take_any_text_are_those_that_a_config_names(own_registry, monkeypatch):
    monkeypatch.setattr(registry, "free_text", set())

    @dataclass(frozen=True)
    class LabelConfig:
        name: str
        text: str
        size: int

        free_text = ("text",)

    register("shop/label", "plain", builds=f"{__name__}:Kettle")(LabelConfig)
    assert registry.free_text == {"shop.label.text"}
    assert registry.schema("shop/label", "plain") is LabelConfig


def test_restoring_checks_the_ranges_again(composed):
    values = asdict(composed("model=lstm").model) | {"hidden_size": 0}
    with pytest.raises(Refused, match="hidden_size=0"):
        restore("model", values)


def test_composing_refuses_a_wrong_key_with_the_allowed_ones(composed):
    with pytest.raises(Refused) as refused:
        composed("model=lstm", "model.hiden_size=3")
    assert "did you mean 'hidden_size'" in str(refused.value)
    assert "embedding_size" in str(refused.value)


@pytest.mark.parametrize(
    "override", ["model.hidden_size=wide", "data.limit=few", "training.clip_norm=tight"]
)
def test_composing_refuses_a_wrong_type_and_names_the_key(composed, override):
    with pytest.raises(Refused, match=override.partition("=")[0]):
        composed(override)


def test_composing_imports_neither_torch_nor_datasets_nor_mlflow():
    code = (
        "import sys\n"
        "from unroll.app import compose\n"
        "compose([])\n"
        "print([name for name in ('torch', 'datasets', 'mlflow') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
