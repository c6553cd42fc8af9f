"""The other sides in this process: the lab's and the plain twin, at the sizes of a config."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.bench import ours, plain
from experiments.bench.text import Text
from unroll.config import Config
from unroll.data.batching import Batching
from unroll.models.language_model import LanguageModel
from unroll.registry import build

ARTICLE = 120
"""Words of a typical article of AG News that is long enough for the lab."""

Pairs = Iterator[tuple[Tensor, Tensor]]


def model(config: Config, text: Text, device: str) -> plain.PlainModel:
    """The plain model of the sizes of a config."""
    torch.manual_seed(config.seed)
    of: Any = config.model
    sizes = of.embedding_size, of.hidden_size, of.layers
    made = plain.PlainModel(of.name, len(text), *sizes, config.training.dropout)
    return made.to(device)


def awd(config: Config, text: Text, device: str) -> plain.PlainAWD:
    """The plain AWD-LSTM of the sizes of a config, with its dropout and its penalties."""
    torch.manual_seed(config.seed)
    of: Any = config.model
    shares = of.word_dropout, of.embedding_dropout, of.dropout, of.output_dropout, of.weight_dropout
    training = config.training
    penalties = training.activation_regularization, training.temporal_activation_regularization
    return plain.PlainAWD(len(text), of.sizes, shares, penalties).to(device)


def optimizer(config: Config, model: torch.nn.Module) -> Any:
    """PyTorch's optimizer of the config's name."""
    of = config.optimizer
    make = plain.OPTIMIZERS[of.name]
    return make(model.parameters(), lr=of.learning_rate, weight_decay=of.weight_decay)


def batches(config: Config, text: Text, device: str) -> Pairs:
    """Inputs and targets, both ``(batch, time)``, epoch after epoch."""
    batching: Batching = build("data/batching", config.data.batching)
    for epoch in count():
        for batch in batching.batches(text.stream, config.seed, epoch):
            yield batch.inputs.to(device), batch.targets.to(device)


def steps(config: Config, text: Text) -> int:
    """Batches of an epoch."""
    batching: Batching = build("data/batching", config.data.batching)
    return batching.steps(text.stream)


def lab_learning(config: Config, text: Text, device: str) -> Callable[[int], float]:
    """The lab's training by a number of steps; the words that were learned."""
    learner = model(config, text, device)
    adam = optimizer(config, learner)
    windows = ((ids, targets[:, -1]) for ids, targets in batches(config, text, device))
    return lambda steps: plain.learn_last_words(learner, adam, islice(windows, steps))


def twin_learning(
    config: Config, text: Text, device: str, products: plain.Products | None = None
) -> Callable[[int], float]:
    """The plain twin's training by a number of steps; the words that were learned."""
    return _learning(model(config, text, device), config, text, device, products)


def awd_learning(config: Config, text: Text, device: str) -> Callable[[int], float]:
    """The same of the plain AWD-LSTM."""
    return _learning(awd(config, text, device), config, text, device)


def _learning(
    learner: plain.PlainModel | plain.PlainAWD,
    config: Config,
    text: Text,
    device: str,
    products: plain.Products | None = None,
) -> Callable[[int], float]:
    steps_of, clip = optimizer(config, learner), config.training.clip_norm
    pairs = batches(config, text, device)
    return lambda steps: plain.learn_every_word(
        learner, steps_of, islice(pairs, steps), clip, products
    )


def lab_scoring(config: Config, text: Text, device: str) -> Callable[[int], float]:
    """The lab's scoring loop over an article, a number of times; the words that were scored."""
    learner, ids = model(config, text, device).eval(), head(text, device, ARTICLE)

    def work(articles: int) -> float:
        for _ in range(articles):
            plain.score_by_windows(learner, ids, config.evaluation.context)
        return articles * (len(ids) - 1)

    return work


def lab_writing(config: Config, text: Text, device: str) -> Callable[[int], float]:
    """The lab's generator, one text; the words that were written."""
    learner, prefix = model(config, text, device).eval(), head(text, device, ours.PREFIX)
    temperature = config.sampling.temperature
    return lambda words: len(plain.write(learner, prefix, words, temperature))


def head(text: Text, device: str, words: int) -> Tensor:
    """The first ids of a text, ``(time,)``."""
    return torch.from_numpy(np.asarray(text.stream.tokens[:words]).astype(np.int64)).to(device)


def copied(source: LanguageModel, target: plain.PlainModel) -> plain.PlainModel:
    """The plain model with our model's weights, which have the same shapes."""
    names = {"cell.module.": "cell.", "softmax.": ""}
    weights = {}
    for name, tensor in source.state_dict().items():
        for ours_name, plain_name in names.items():
            name = name.replace(ours_name, plain_name)
        weights[name] = tensor
    target.load_state_dict(weights)
    return target


def twin_perplexity(start: ours.Subject, device: str, steps: int) -> float:
    """Perplexity of the validation text after a training that starts with the weights of our model
    and reads the same batches."""
    config, text = start.config, start.text
    learner = copied(start.model, model(config, text, device))
    pairs = islice(batches(config, text, device), steps)
    clip = config.training.clip_norm
    plain.learn_every_word(learner, optimizer(config, learner), pairs, clip)
    assert text.valid is not None
    ids = torch.from_numpy(np.asarray(text.valid.tokens).astype(np.int64)).to(device)
    nats = plain.score_in_sequence(learner.eval(), ids)
    return math.exp(nats / (len(ids) - 1))
