"""Which tokens top-k, top-p and the temperature leave, and how often each is drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from unroll.generation.sampler import choose

DRAWS = 20_000


@pytest.fixture
def setting(composed):
    base = replace(composed().sampling, temperature=1.0, seed=5)
    return lambda **changes: replace(base, **changes)


LOGITS = torch.tensor([0.5, 2.0, -1.0, 1.0, 0.1, -3.0, 1.5])


def drawn(config) -> list[float]:
    """How often each token is drawn."""
    generator = torch.Generator().manual_seed(9)
    found = choose(LOGITS.expand(DRAWS, -1), config, generator)
    return (torch.bincount(found, minlength=len(LOGITS)) / DRAWS).tolist()


def shares(kept: list[int], temperature: float = 1.0) -> list[float]:
    """exp(logit / temperature) of the kept tokens over their sum."""
    weights = [
        math.exp(logit / temperature) if token in kept else 0.0
        for token, logit in enumerate(LOGITS.tolist())
    ]
    return [weight / sum(weights) for weight in weights]


def agree(found: list[float], expected: list[float]) -> bool:
    """Within four standard errors, and never where nothing is expected."""
    return all(
        abs(seen - share) <= 4 * math.sqrt(share * (1 - share) / DRAWS)
        for seen, share in zip(found, expected, strict=True)
    )


EVERY = list(range(len(LOGITS)))
RANKED = [1, 6, 3, 0, 4, 2, 5]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_are_drawn_as_often_as_the_softmax_at_the_temperature_says(setting, temperature):
    assert agree(drawn(setting(temperature=temperature)), shares(EVERY, temperature))


@pytest.mark.parametrize("top_k", [1, 2, 3, 6, 7, 100])
def test_top_k_draws_only_the_k_most_likely_in_proportion(setting, top_k):
    assert agree(drawn(setting(top_k=top_k)), shares(RANKED[:top_k]))


def nucleus(top_p: float, temperature: float = 1.0) -> list[int]:
    """The fewest most likely tokens that together have top_p."""
    kept, held = [], 0.0
    for token in RANKED:
        if held >= top_p:
            break
        kept.append(token)
        held += shares(EVERY, temperature)[token]
    return kept


@pytest.mark.parametrize("top_p", [0.01, 0.4, 0.5, 0.75, 0.95, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_top_p_draws_only_the_nucleus_in_proportion(setting, top_p, temperature):
    kept = nucleus(top_p, temperature)
    found = drawn(setting(top_p=top_p, temperature=temperature))
    assert agree(found, shares(kept, temperature))


def test_top_p_is_taken_among_what_top_k_leaves(setting):
    # of the three most likely the first has 0.51 and the second 0.31
    assert agree(drawn(setting(top_k=3, top_p=0.6)), shares([1, 6]))


def test_every_row_is_drawn_by_itself(setting):
    logits = torch.full((3, 4), -50.0)
    logits[[0, 1, 2], [2, 0, 3]] = 50.0
    for config in (setting(), setting(top_k=2), setting(top_p=0.9), setting(greedy=True)):
        assert choose(logits, config, torch.Generator()).tolist() == [2, 0, 3]
