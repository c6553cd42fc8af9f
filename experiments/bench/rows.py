"""The rows of the table: what is timed against what, at which sizes, and the bar."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from experiments.bench import long, others, peer, sides
from experiments.bench.contest import Bar, Contest, Ours, bar
from experiments.bench.sides import SOFTMAXES, news, ours_by, softmaxes, treebank
from experiments.bench.turns import COST, EXTRA

CELLS = {"RNN": "rnn", "GRU": "gru", "LSTM": "lstm"}
UNITS = (200, 650)
LEARNED, SCORED, WRITTEN = "words learned a second", "words scored a second", "words a second"
LAB, TWIN, EXAMPLE = "the lab's loop", "the plain twin", "PyTorch's example"
ORIGINAL = "its operations in plain PyTorch"
WINDOWS = "data/batching=windows"
SEQUENCE = "data/batching=sequential data.batching.length=100"
"""A step of the lab reads 32 windows of 100 words; so does ours, and learns every word of them."""
PRODUCTS: Mapping[str, Bar] = {"full": Bar(2.0, 1.3), "adaptive": bar(3.0)}


def lab(cell: str) -> str:
    """The lab's sizes."""
    return f"experiment=lab/{cell} data=lee_news {SEQUENCE} training.epochs=null"


def two_layers(cell: str, units: int) -> str:
    """The sizes and the training of PyTorch's example."""
    return (
        f"model={cell} model.layers=2 model.embedding_size={units} model.hidden_size={units} "
        "training.dropout=0.2 training.clip_norm=0.25 optimizer=sgd optimizer.learning_rate=20 "
        f"data.batching.batch_size={peer.BATCH} data.batching.length={peer.STEPS}"
    )


AWD = "experiment=penn_treebank/awd_lstm model.tie_weights=true optimizer.learning_rate=30.0"
A_FEW_STEPS = 10.0
"""Seconds of a turn of AWD-LSTM, one step of which may take several."""
WIDE = "model=lstm model.embedding_size=256 model.hidden_size=256"

TRAINING = tuple(
    contest
    for units in UNITS
    for name, cell in CELLS.items()
    for contest in (
        Contest(
            "twin",
            f"training, 2 x {units}, {name}",
            LEARNED,
            TWIN,
            sides.other_by(others.twin_learning, two_layers(cell, units), treebank),
            softmaxes(sides.learning, two_layers(cell, units), treebank),
        ),
        Contest(
            "peer",
            f"training, 2 x {units}, {name}",
            LEARNED,
            EXAMPLE,
            sides.example(cell, units),
            softmaxes(sides.learning, two_layers(cell, units), treebank),
            PRODUCTS,
            needs=("PEER", "PENN_TREEBANK"),
            on=("cpu",),
        ),
    )
)
TIME = Contest(
    "time",
    f"time to the perplexity after {long.EPOCHS} epochs",
    "seconds",
    EXAMPLE,
    long.example_time,
    {name: long.our_time(choice) for name, choice in SOFTMAXES.items()},
    dict.fromkeys(SOFTMAXES, bar(3.0)),
    COST,
    turns=1,
    warm_ups=0,
    needs=("PEER", "PENN_TREEBANK", "FULL"),
    on=("cpu",),
)
AWD_LSTM = Contest(
    "awd",
    "training, AWD-LSTM of Penn Treebank",
    LEARNED,
    ORIGINAL,
    sides.other_by(others.awd_learning, AWD, treebank, A_FEW_STEPS),
    {"": ours_by(partial(sides.learning, seconds=A_FEW_STEPS), AWD, treebank)},
    {"": bar(1.0)},
)
THE_LAB = tuple(
    Contest(
        "lab",
        f"training, the lab's {name}",
        LEARNED,
        LAB,
        sides.other_by(others.lab_learning, f"{lab(cell)} {WINDOWS}", news),
        softmaxes(sides.learning, lab(cell), news),
        {"full": bar(20.0), "adaptive": bar(100.0)},
    )
    for name, cell in CELLS.items()
)
SHARES = (
    sides.share("training, the lab's LSTM, full", LEARNED, sides.learning, lab("lstm")),
    sides.share("training, 256 units, full", LEARNED, sides.learning, WIDE),
    sides.share("scoring, the lab's LSTM, full", SCORED, sides.scoring, lab("lstm")),
    sides.share("scoring, 256 units, full", SCORED, sides.scoring, WIDE),
)
SCORING = Contest(
    "scoring",
    "scoring, the lab's LSTM",
    SCORED,
    LAB,
    sides.other_by(others.lab_scoring, lab("lstm"), news),
    softmaxes(sides.scoring, lab("lstm"), news),
    {"full": bar(60.0), "adaptive": bar(300.0)},
)
WRITING = tuple(
    Contest(
        "writing",
        f"writing {texts} text{'s' * (texts > 1)}, the lab's LSTM",
        WRITTEN,
        LAB,
        sides.other_by(others.lab_writing, lab("lstm"), news),
        {
            **softmaxes(sides.writing(texts), lab("lstm"), news),
            "full, int8": sides.writing_in_eight_bits(lab("lstm"), news, texts),
        },
        {"full": bar(full), "adaptive": bar(adaptive)},
    )
    for texts, full, adaptive in ((1, 10.0, 30.0), (64, 150.0, 300.0))
)
CHARACTERS = Contest(
    "characters",
    "characters, LSTM of 256 units",
    "characters learned a second",
    "plain lines",
    sides.plain_lines,
    {"": ours_by(sides.learning, sides.CHARACTERS, sides.characters)},
    {"": bar(1.3)},
)
PERPLEXITY = Contest(
    "perplexity",
    f"perplexity after {sides.EPOCHS} epochs of Lee news",
    "perplexity",
    TWIN,
    sides.twin_perplexity,
    {name: sides.learned_perplexity(choice) for name, choice in SOFTMAXES.items()},
    dict.fromkeys(SOFTMAXES, bar(0.99)),
    COST,
    turns=1,
    warm_ups=0,
)
EPOCH = Contest(
    "epoch",
    "an epoch of AG News, 256 units, validated and scored",
    "seconds",
    f"{TWIN}, from its rates",
    long.twin_epoch,
    {name: long.our_epoch(choice) for name, choice in SOFTMAXES.items()},
    dict.fromkeys(SOFTMAXES, bar(5.0)),
    COST,
    turns=1,
    warm_ups=0,
    needs=("AG_NEWS", "FULL"),
)
MEMORY = Contest(
    "memory",
    "memory, 100 million tokens",
    "MB",
    "1 million",
    lambda bench: sides.memory(1_000_000),
    {"": lambda bench: Ours(sides.memory(100_000_000), "float32")},
    {"": bar(50.0)},
    EXTRA,
    turns=1,
    warm_ups=0,
    on=("cpu",),
)
TRACKING = Contest(
    "tracking",
    "training, tracked",
    LEARNED,
    "not tracked",
    sides.untracked,
    {"": sides.tracked},
    {"": bar(0.98)},
    turns=5,
)

CONTESTS: tuple[Contest, ...] = (
    *TRAINING,
    TIME,
    AWD_LSTM,
    *THE_LAB,
    *SHARES,
    SCORING,
    *WRITING,
    CHARACTERS,
    PERPLEXITY,
    EPOCH,
    MEMORY,
    TRACKING,
)
