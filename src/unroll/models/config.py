"""Config of a model."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from unroll.errors import require, require_one_of, require_share
from unroll.registry import register

LANGUAGE_MODEL = "unroll.models.language_model:LanguageModel"
TRAINER = "unroll.training.loop:Trainer"
SMOOTHINGS = ("additive", "good_turing", "kneser_ney", "laplace", "none", "witten_bell")
DROPOUT_MASKS = ("element", "sequence")
PRECISIONS = ("float32", "bfloat16")
"""Number formats of a model's products."""

SPECIAL_TOKENS = 4
"""The first ids of every vocabulary: an adaptive softmax has them in its shortlist."""
COVERED = (0.8, 0.95)
"""Shares of the training text before each tail of an adaptive softmax."""

Counts = Callable[[], Sequence[int]]
"""How often a text contains each id; called only where it is needed."""

BIDIRECTIONAL: dict[str, tuple[Any, ...]] = {
    "data/batching": ("windows",),
    "evaluation.protocol": ("window", "handout"),
    "evaluation.contexts": (None,),
    "evaluation.gradient_steps": (None,),
    "training/truncation": ("full",),
    "task": ("evaluate", "sample", "compare"),
    "precision": ("float32",),
}
"""The values that work with a bidirectional model, the suggested one first. Such a model sees the
tokens after a position, so it predicts only the token after its input and carries no state."""


def require_one_direction(bidirectional: bool, key: str, value: Any) -> None:
    """Raise ``Refused`` if the model is bidirectional and ``key=value`` needs one direction."""
    allowed = BIDIRECTIONAL[key]
    suggested = "null" if allowed[0] is None else allowed[0]
    require(
        not bidirectional or value in allowed,
        f"model.bidirectional=true does not work with {key}={value}, which needs a model that "
        f"reads only the tokens before a position: set {key}={suggested}, or "
        "model.bidirectional=false",
    )


@dataclass(frozen=True)
class ModelConfig:
    """Config that every model has; ``name`` also names its learner, which fits it to a text."""

    name: str

    def fitted(self, counts: Counts) -> ModelConfig:
        """The config with what is chosen from the training text, given the counts of its ids."""
        return self


@dataclass(frozen=True)
class SoftmaxConfig:
    """Config that every softmax has."""

    name: str

    def fitted(self, counts: Counts) -> SoftmaxConfig:
        """The config with what is chosen from the training text, given the counts of its ids."""
        return self


@register("model/softmax", "full", builds="unroll.models.softmax:FullSoftmax")
@dataclass(frozen=True)
class FullSoftmaxConfig(SoftmaxConfig):
    """One linear layer and the softmax over the whole vocabulary."""


@register("model/softmax", "adaptive", builds="unroll.models.adaptive_softmax:AdaptiveSoftmax")
@dataclass(frozen=True)
class AdaptiveSoftmaxConfig(SoftmaxConfig):
    """A shortlist of frequent tokens, and tails of rarer ones (Grave et al. 2017)."""

    cutoffs: list[int] | None
    """The first id of each tail; null: the most frequent tokens that make up 80% of the training
    text are the shortlist, and up to 95% the first tail."""
    div_value: float
    """Each tail reads vectors this many times narrower than the cluster before it."""

    def __post_init__(self) -> None:
        if self.cutoffs is not None:
            ends = self.cutoffs
            require(
                ends and ends[0] >= SPECIAL_TOKENS and ends == sorted(set(ends)),
                f"model.softmax.cutoffs={ends}: expected increasing ids from {SPECIAL_TOKENS} on, "
                "such as [2000,10000], or null",
            )
        require(
            1 <= self.div_value < math.inf,
            f"model.softmax.div_value={self.div_value}: must be at least 1 and finite",
        )

    def fitted(self, counts: Counts) -> SoftmaxConfig:
        if self.cutoffs is not None:
            return self
        read = list(accumulate(counts()))
        places = {bisect_left(read, share * read[-1]) + 1 for share in COVERED}
        cutoffs = sorted(place for place in places if SPECIAL_TOKENS <= place < len(read))
        require(
            cutoffs,
            f"model/softmax=adaptive: a vocabulary of {len(read):,} tokens is too small for "
            "clusters: set model/softmax=full",
        )
        return replace(self, cutoffs=cutoffs)


@register("model/softmax", "mixture", builds="unroll.models.mixture_softmax:MixtureSoftmax")
@dataclass(frozen=True)
class MixtureSoftmaxConfig(SoftmaxConfig):
    """A mixture of softmaxes over one matrix (Yang et al. 2018)."""

    components: int
    """Softmaxes in the mixture; each costs as much as the full one."""

    def __post_init__(self) -> None:
        require(
            self.components >= 1,
            f"model.softmax.components={self.components}: must be at least 1",
        )


@dataclass(frozen=True)
class NeuralConfig(ModelConfig):
    """Config that every model with an embedding and a softmax has."""

    embedding_size: int
    one_hot: bool
    """Feed one-hot vectors instead of learned embeddings; embedding_size then has no meaning."""
    hidden_size: int
    layers: int
    dropout: float
    """In a cell between layers (Zaremba et al. 2014); in a Transformer of what attention and
    feed-forward network add to their input."""
    embedding_dropout: float
    output_dropout: float
    dropout_mask: str
    """How the three are drawn. element: anew for each value; sequence: once for each row, and kept
    over all the steps that are read at once (variational dropout: Gal and Ghahramani 2016)."""
    word_dropout: float
    """Share of the vocabulary whose embedding, or one-hot vector, is dropped wherever the token
    occurs in what is read at once (Gal and Ghahramani 2016)."""
    tie_weights: bool
    """One matrix for embedding and softmax (Press and Wolf 2017); needs equal sizes. Unless it is
    given: true where the sizes are equal, with a full softmax, one direction and no one_hot."""
    softmax: SoftmaxConfig

    @property
    def cells(self) -> str:
        """The group of the registry with what reads the embeddings."""
        return "cell/library"

    @property
    def output_size(self) -> int:
        """Width of what the softmax reads."""
        return self.hidden_size

    def __post_init__(self) -> None:
        for key in ("hidden_size", "embedding_size", "layers"):
            value = getattr(self, key)
            require(value >= 1, f"model.{key}={value}: must be at least 1")
        for key in ("dropout", "embedding_dropout", "output_dropout", "word_dropout"):
            require_share(f"model.{key}", getattr(self, key))
        require_one_of("model.dropout_mask", self.dropout_mask, DROPOUT_MASKS)
        width = self.output_size
        require(
            not (self.tie_weights and self.one_hot),
            "model.tie_weights=true needs learned embeddings: set model.one_hot=false",
        )
        require(
            not self.tie_weights or self.embedding_size == width,
            f"model.tie_weights=true needs model.embedding_size ({self.embedding_size}) equal to "
            f"the output's width ({width}): set model.embedding_size={width}",
        )

    @property
    def one_mask(self) -> bool:
        """Whether the steps of a sequence share a dropout mask."""
        return self.dropout_mask == "sequence"

    def fitted(self, counts: Counts) -> ModelConfig:
        return replace(self, softmax=self.softmax.fitted(counts))


@dataclass(frozen=True)
class RecurrentConfig(NeuralConfig):
    """Config that the three cells share."""

    implementation: str
    """library: the fastest for the cell and the device, with PyTorch's weights; scratch: the same
    equations in plain PyTorch, slower."""
    bias: str
    """double: two bias vectors a layer, b_ih and b_hh, as in PyTorch; single: b_ih alone, as in
    most papers. In the GRU, single leaves b_hn out of the product with the reset gate:
    n = tanh(W_in x + b_in + r * W_hn h)."""
    bidirectional: bool
    initialization: str
    """default: PyTorch's uniform; orthogonal: recurrent matrices orthogonal (Saxe et al. 2014);
    normal: every weight from N(0, 0.01^2), every bias 0 (d2l 8.5)."""
    spectral_radius: float | None
    """Largest absolute eigenvalue that every gate's recurrent matrix is scaled to at the start
    (Pascanu et al. 2013); null: not scaled."""
    weight_dropout: float
    """Share of the recurrent matrices W_hh that is dropped, the same in all steps that are read at
    once (Merity et al. 2018)."""
    last_size: int | None
    """Hidden size of the last of several layers, as in AWD-LSTM, whose tied embedding is narrower
    than its layers (Merity et al. 2018); null: that of the others."""
    layer_norm: bool
    """Normalise what each layer but the first reads, before dropout (Ba et al. 2016)."""
    residual: bool
    """Add the outputs of the layer below to those of each layer but the first (He et al. 2016)."""
    mogrifier_rounds: int
    """Rounds in which the input of each layer and its hidden state gate each other before a step
    (Melis et al. 2020); 0: none."""
    mogrifier_rank: int | None
    """Rank of the matrices of the rounds, each of which is then the product of two; null: full."""

    @property
    def cells(self) -> str:
        return f"cell/{self.implementation}"

    @property
    def sizes(self) -> list[int]:
        """The hidden size of each layer."""
        return [self.hidden_size] * (self.layers - 1) + [self.last_size or self.hidden_size]

    @property
    def output_size(self) -> int:
        return self.sizes[-1] * (2 if self.bidirectional else 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("model.weight_dropout", self.weight_dropout)
        for key in ("layer_norm", "residual"):
            require(
                not getattr(self, key) or self.layers > 1,
                f"model.{key}=true acts between layers: set model.layers to 2 or more, or "
                f"model.{key}=false",
            )
        if self.last_size is not None:
            require(
                self.last_size >= 1 and self.layers > 1 and not self.residual,
                f"model.last_size={self.last_size}: must be at least 1, and needs model.layers of "
                "2 or more and model.residual=false; set it to null for layers of one size",
            )
        rounds, rank = self.mogrifier_rounds, self.mogrifier_rank
        require(rounds >= 0, f"model.mogrifier_rounds={rounds}: must be at least 0")
        require(
            rank is None or (rank >= 1 and rounds > 0),
            f"model.mogrifier_rank={rank}: must be at least 1, and needs model.mogrifier_rounds of "
            "1 or more; set it to null for full matrices",
        )
        require_one_of("model.implementation", self.implementation, ("library", "scratch"))
        require_one_of("model.bias", self.bias, ("double", "single"))
        require_one_of(
            "model.initialization", self.initialization, ("default", "orthogonal", "normal")
        )
        require(
            self.spectral_radius is None
            or (self.spectral_radius > 0 and math.isfinite(self.spectral_radius)),
            f"model.spectral_radius={self.spectral_radius}: must be above 0 and finite, or null "
            "to leave the matrices unscaled",
        )


@register("model", "rnn", builds=LANGUAGE_MODEL)
@register("learner", "rnn", builds=TRAINER)
@register("cell/library", "rnn", builds="unroll.models.recurrent:RNN")
@register("cell/scratch", "rnn", builds="unroll.models.scratch:ScratchRNN")
@dataclass(frozen=True)
class RNNConfig(RecurrentConfig):
    """The simple recurrent network (Elman 1990)."""

    nonlinearity: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("model.nonlinearity", self.nonlinearity, ("tanh", "relu"))


@register("model", "lstm", builds=LANGUAGE_MODEL)
@register("learner", "lstm", builds=TRAINER)
@register("cell/library", "lstm", builds="unroll.models.recurrent:LSTM")
@register("cell/scratch", "lstm", builds="unroll.models.scratch:ScratchLSTM")
@dataclass(frozen=True)
class LSTMConfig(RecurrentConfig):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    forget_gate_bias: float | None
    """Start value of the forget gate's bias under every initialization (Jozefowicz et al. 2015
    take 1); null: what the initialization gives."""


@register("model", "gru", builds=LANGUAGE_MODEL)
@register("learner", "gru", builds=TRAINER)
@register("cell/library", "gru", builds="unroll.models.recurrent:GRU")
@register("cell/scratch", "gru", builds="unroll.models.scratch:ScratchGRU")
@dataclass(frozen=True)
class GRUConfig(RecurrentConfig):
    """The gated recurrent unit (Cho et al. 2014)."""


@register("model", "transformer", builds=LANGUAGE_MODEL)
@register("learner", "transformer", builds=TRAINER)
@register("cell/library", "transformer", builds="unroll.models.transformer:Transformer")
@dataclass(frozen=True)
class TransformerConfig(NeuralConfig):
    """A causal Transformer (Vaswani et al. 2017) with rotary positions (Su et al. 2024)."""

    heads: int
    """Heads of attention in a layer."""
    feedforward_size: int | None
    """Units of the network after attention; null: four times the hidden size."""
    context: int
    """Tokens that a layer attends to, the current one included. What a prediction depends on goes
    back further with each layer: 1 + layers * (context - 1) tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value in {
            "heads": self.heads,
            "feedforward_size": self.feedforward_width,
            "context": self.context,
        }.items():
            require(value >= 1, f"model.{key}={value}: must be at least 1")
        require(
            self.hidden_size % (2 * self.heads) == 0,
            f"model.hidden_size={self.hidden_size}: must be a multiple of 2 * model.heads "
            f"({2 * self.heads}), because each head turns pairs of its entries",
        )

    @property
    def feedforward_width(self) -> int:
        """Units of the network after attention: as set, or four times the hidden size."""
        return 4 * self.hidden_size if self.feedforward_size is None else self.feedforward_size


@register("model", "ngram", builds="unroll.models.ngram:NGramModel")
@register("learner", "ngram", builds="unroll.training.counting:Counting")
@dataclass(frozen=True)
class NGramConfig(ModelConfig):
    """n-gram counts."""

    order: int
    """Words of an n-gram: the predicted one and its context of order - 1."""
    smoothing: str
    """kneser_ney: interpolated modified Kneser-Ney; witten_bell: interpolated; good_turing: the
    back-off of Katz; additive: a pseudocount for every word; laplace: one for every context, shared
    like single words, as in d2l 8.3.1; none."""
    pseudocount: float
    """additive adds it to the count of every word after every context (1: the rule of Laplace);
    laplace adds it to the count of every context."""

    def __post_init__(self) -> None:
        require(self.order >= 1, f"model.order={self.order}: must be at least 1")
        require_one_of("model.smoothing", self.smoothing, SMOOTHINGS)
        used = self.smoothing in ("additive", "laplace")
        require(
            math.isfinite(self.pseudocount)
            and (self.pseudocount > 0 or (self.pseudocount == 0 and not used)),
            f"model.pseudocount={self.pseudocount}: must be above 0 and finite for "
            f"{self.smoothing} smoothing (for no smoothing, set model.smoothing=none)",
        )
