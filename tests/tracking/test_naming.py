"""Run names: short, the model first, then what the overrides change."""

import pytest

from unroll.app import compose
from unroll.tracking.naming import LONGEST, multirun_name, run_name

NAMES = {
    "": "lstm",
    "model.hidden_size=128 seed=3": "lstm hidden_size=128 seed=3",
    "model=gru data=recall": "gru recall",
    "experiment=lab/lstm seed=2": "lstm ag_news experiment=lab/lstm seed=2",
    "data=lee_news data/batching=windows": "lstm lee_news batching=windows",
    "training.truncation=full": "lstm truncation=full",
    "data=text_files data.path=/a/b.txt data.cache=/c threads=2 rerun=true device=cpu": (
        "lstm text_files"
    ),
    "tracking.directory=/tmp/x tracking.study=s tracking=mlflow seed=5": "lstm seed=5",
    "sampling.prefix='Oil prices'": "lstm prefix=Oil prices",
    "task=describe data=recall model=rnn": "describe rnn recall",
    "task=forecast task.forecaster=gru": "forecast forecaster=gru",
    f"task=deploy run={'0123456789abcdef' * 2}": "deploy run=01234567",
    "tracking.run_name=first seed=3": "first",
}


def words(line: str) -> list[str]:
    parts = line.replace("'Oil prices'", "'Oil_prices'").split()
    return [part.replace("Oil_prices", "Oil prices") for part in parts]


@pytest.mark.parametrize("line", NAMES)
def test_a_name_is_the_model_and_what_the_overrides_change(line: str) -> None:
    assert run_name(compose(words(line)), words(line)) == NAMES[line]


def test_a_long_name_is_cut_between_words() -> None:
    overrides = [f"model.hidden_size={n}" for n in range(100, 140)]
    name = run_name(compose([]), overrides)
    assert len(name) <= LONGEST
    assert name.endswith(" ...")
    assert set(name.removeprefix("lstm ").removesuffix(" ...").split()) <= {
        word.removeprefix("model.") for word in overrides
    }


def test_a_multirun_is_named_by_what_it_varies() -> None:
    given = ["model=rnn,gru", "seed=1,2", "tracking.directory=/x", "hydra/launcher=joblib"]
    assert multirun_name(given) == "model=rnn,gru seed=1,2"
    assert multirun_name([]) == "multirun"
