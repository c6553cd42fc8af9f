"""A checkpoint whose parts do not belong together is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from unroll.config import Config
from unroll.data.vocabulary import SPECIALS
from unroll.errors import Refused
from unroll.models.language_model import LanguageModel
from unroll.tasks.trained import load_run
from unroll.training import checkpoint

TOKENS = [*SPECIALS, "the", "fire", "police"]
DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a word too few": lambda header: header.update(vocabulary=json.dumps(TOKENS[:-1])),
    "a word too many": lambda header: header.update(vocabulary=json.dumps([*TOKENS, "more"])),
    "a word twice": lambda header: header.update(vocabulary=json.dumps([*TOKENS[:-1], "the"])),
    "no specials": lambda header: header.update(vocabulary=json.dumps(TOKENS[4:])),
    "a vocabulary that is a number": lambda header: header.update(vocabulary="3"),
    "a vocabulary that is no JSON": lambda header: header.update(vocabulary="["),
    "words that are numbers": lambda header: header.update(vocabulary=json.dumps([[1], [2]])),
    "no model": lambda header: header["config"].pop("model"),
    "a model that is a list": lambda header: header["config"].update(model=[1]),
    "a model of another name": lambda header: header["config"]["model"].update(name="x"),
    "a size that is a text": lambda header: header["config"]["model"].update(hidden_size="8"),
    "a size that is far too large": lambda header: header["config"]["model"].update(
        hidden_size=10**12
    ),
    "another size": lambda header: header["config"]["model"].update(hidden_size=5),
    "an unknown key": lambda header: header["config"]["model"].update(more=1),
    "no data": lambda header: header["config"].update(data=None),
    "a tokenizer of another kind": lambda header: header["config"]["data"]["tokenizer"].update(
        name="subword", size=300
    ),
}


@pytest.fixture
def saved(composed: Callable[..., Config], tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint of a small model, whose header was changed before it was saved."""

    def saved_(change: Callable[[dict[str, Any]], Any]) -> Path:
        config = composed("model.embedding_size=4", "model.hidden_size=4")
        torch.manual_seed(1)
        model = LanguageModel(config.model, len(TOKENS))  # type: ignore[arg-type]
        header = {"config": asdict(config), "vocabulary": json.dumps(TOKENS), "tokenizer": "{}"}
        change(header)
        checkpoint.save(tmp_path / "x.safetensors", model, run_id="x", step=1, **header)
        return tmp_path / "x.safetensors"

    return saved_


def test_a_whole_checkpoint_is_read(saved, composed) -> None:
    found = load_run(str(saved(lambda header: None)), composed(), [])
    assert found.vocabulary.tokens == TOKENS


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_checkpoint_whose_parts_do_not_fit_is_refused(saved, composed, damage: str) -> None:
    path = saved(DAMAGE[damage])
    with pytest.raises(Refused) as refused:
        load_run(str(path), composed(), [])
    assert len(str(refused.value).splitlines()) == 1
