"""The text before any model: its lengths, its frequencies, and how much of it the lab uses; and
what the seed documents count by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from experiments import speed
from experiments.study import Job, Question, Results, Study
from unroll.report import plots
from unroll.report.figures import named, new
from unroll.report.page import Answer, Drawing, Published, Table, linked, number, sentence
from unroll.report.plots import Panel
from unroll.report.runs import Record

LABEL = "describe"
BY_HAND = {"single": ("one bias vector per layer", "40"), "double": ("two, as PyTorch", "46")}
"""Parameters of a small RNN by ``model.bias``, as document 001 counts them."""
QUESTION = "What does the text look like, and how much of it does the lab's task use?"

Counted = Mapping[str, tuple[str, str]]
"""What is counted: a metric of the run, and the published figure."""

LEE_NEWS: Counted = {
    "training articles": ("train/documents", "300"),
    "training words": ("train/tokens", "59,890"),
    "training articles longer than 100 words": ("train/longer_documents", "277"),
    "windows of 100 words": ("train/windows", "30,301"),
    "test articles": ("test/documents", "50"),
    "test words": ("test/tokens", "3,983"),
}
AG_NEWS: Counted = {
    "training articles longer than 100 words": ("train/longer_documents", "25 of 20,000"),
    "test articles": ("test/documents", "7,600"),
    "test articles longer than 100 words": ("test/longer_documents", "18"),
}
LAB_SPEED = {"rnn": 84, "gru": 43, "lstm": 67}
TEN_WORDS = {
    "the": 2261,
    "i": 1267,
    "and": 1245,
    "of": 1155,
    "a": 816,
    "to": 695,
    "was": 552,
    "in": 541,
    "that": 443,
    "my": 440,
}


def answer(results: Results) -> Answer:
    (record,) = results[LABEL]
    made = _described(record, "zipf")
    for bias, (what, figure) in BY_HAND.items():
        (small,) = results[f"bias {bias}"]
        ours = number(_small_parameters(small), [small.run_id], ".0f")
        made.published.append(Published(f"parameters of a small RNN, {what}", "001", figure, ours))
    if record.params["data.name"] == "lee_news" and record.params["data.limit"] == "None":
        made.published += _counted(record, "Lee news", "000", LEE_NEWS)
    return made


def answer_ag_news(results: Results) -> Answer:
    (record,) = results[LABEL]
    made = _described(record, "ag_news")
    made.published = _counted(record, "AG News", "000", AG_NEWS)
    made.published += [
        Published(
            f"AG News, the lab's {cell.upper()}: targets learned a second",
            "000",
            str(figure),
            speed.pace(results[cell]),
            "published: two cores; ours: one thread, alone",
        )
        for cell, figure in LAB_SPEED.items()
    ]
    return made


def answer_time_machine(results: Results) -> Answer:
    (record,) = results[LABEL]
    made = _described(record, "time_machine_words")
    found = {
        item["token"]: item["count"] for item in record.result()["splits"]["train"]["most_frequent"]
    }
    made.published = [
        Published(
            f"The Time Machine: occurrences of “{word}”",
            "003",
            f"{count:,}",
            number(found.get(word, float("nan")), [record.run_id], ",.0f"),
        )
        for word, count in TEN_WORDS.items()
    ]
    return made


def _counted(record: Record, text: str, source: str, counted: Counted) -> list[Published]:
    return [
        Published(
            f"{text}: {what}", source, figure, number(record.value(key), [record.run_id], ",.0f")
        )
        for what, (key, figure) in counted.items()
    ]


def _small_parameters(record: Record) -> float:
    """Parameters of two RNN layers of 3 units over 1 input with 1 output.

    The run has the same two layers; its softmax has an output for each token of the vocabulary,
    and each output has as many parameters as the one output counted by hand.
    """
    result = record.result()
    layers = result["model"]["layers"]
    recurrent = [layer for layer in layers if layer["layer"].startswith("rnn")]
    output = layers[-1]["parameters"] / result["vocabulary_size"]
    return float(sum(layer["parameters"] for layer in recurrent) + output)


def _described(record: Record, name: str) -> Answer:
    result = record.result()
    train = result["splits"]["train"]
    named_splits = {"training": "train", "test": "test"}
    return Answer(
        [
            *_shape(record, result, train),
            *(
                _used_by_the_lab(record, said, result["splits"][split])
                for said, split in named_splits.items()
                if split in result["splits"]
            ),
        ],
        [_frequencies(name, result["zipf"]), _lengths(name, train), _most_frequent(record, train)],
    )


class Numbers:
    """Numbers of one run, written in the forms of this section."""

    def __init__(self, record: Record) -> None:
        self.runs = [record.run_id]

    def count(self, value: float) -> Markup:
        return number(value, self.runs, ",.0f")

    def share(self, value: float, form: str = ".2%") -> Markup:
        return number(value, self.runs, form)


def _shape(record: Record, result: dict[str, Any], train: dict[str, Any]) -> list[Markup]:
    of, lengths, trigrams = Numbers(record), train["lengths"], result["zipf"]["trigrams"]
    ten = sum(item["count"] for item in train["most_frequent"]) / train["tokens"]
    return [
        sentence(
            "{}: {} training documents have {} tokens of {} kinds. Half of the documents have "
            "between {} and {} tokens; the minimum is {}, the maximum {}, the mean {}.",
            record.params["data.name"],
            *map(of.count, (train["documents"], train["tokens"], train["types"])),
            *(
                of.count(lengths[key])
                for key in ("lower_quartile", "upper_quartile", "minimum", "maximum", "mean")
            ),
        ),
        sentence(
            "The ten most frequent kinds make up {} of the text. With frequency fitted as rank "
            "to the power of -a, a is {} for tokens, {} for bigrams and {} for trigrams. {} of the "
            "distinct trigrams occur once, which is what counting models have to smooth.",
            of.share(ten, ".0%"),
            *(
                number(record.value(f"zipf/{grams}"), of.runs, ".2f")
                for grams in ("unigrams", "bigrams", "trigrams")
            ),
            of.share(trigrams["once"] / trigrams["distinct"], ".0%"),
        ),
    ]


def _used_by_the_lab(record: Record, split: str, figures: dict[str, Any]) -> Markup:
    of = Numbers(record)
    return sentence(
        "In the {} split {} of {} documents ({}) have over {} tokens. The lab's task, which reads "
        "{} and predicts the next one, finds {} windows in them, so {} of the tokens are ever "
        "predicted. {} of the tokens are unknown.",
        split,
        of.count(figures["longer_documents"]),
        of.count(figures["documents"]),
        of.share(figures["longer_rate"]),
        figures["window"],
        figures["window"],
        of.count(figures["windows"]),
        of.share(figures["target_rate"]),
        of.share(figures["unknown_rate"]),
    )


def _frequencies(name: str, laws: dict[str, Any]) -> Drawing:
    lines = {}
    for grams, law in laws.items():
        fit, label = law["fit"], grams
        if fit["exponent"] is not None:
            label += f", exponent {fit['exponent']:.2f}"
            ends = [fit["first_rank"], fit["last_rank"]]
            fitted = [(rank, fit["scale"] * rank ** -fit["exponent"]) for rank in ends]
            lines[label] = [law["points"], fitted]
        else:
            lines[label] = [law["points"]]
    return plots.curves(
        f"{name}_frequencies",
        "Occurrences of unigrams, bigrams and trigrams of the training split against their rank, "
        "both axes logarithmic. The straight lines are fitted from rank 10 to the last rank with "
        "five occurrences.",
        [Panel("rank", "occurrences", lines, log_x=True, log_y=True)],
    )


def _lengths(name: str, train: dict[str, Any]) -> Drawing:
    figure, axes = new(height=3.0)
    histogram, window = train["lengths"]["histogram"], train["window"]
    starts = [histogram["width"] * position for position in range(len(histogram["counts"]))]
    looks = {"color": "#9fc5e8", "edgecolor": "#1b1b1b", "linewidth": 0.6}
    axes.bar(starts, histogram["counts"], histogram["width"], align="edge", **looks)
    axes.axvline(window, color="black", linestyle="--", label=f"{window} tokens")
    named(axes, "length (tokens)", "documents")
    axes.legend(loc="upper right")
    return Drawing(
        f"{name}_lengths",
        "Lengths of the training documents. The lab's task cannot use those left of the line, nor "
        f"the first {window} tokens of the others as targets.",
        figure,
    )


def _most_frequent(record: Record, train: dict[str, Any]) -> Table:
    runs = [record.run_id]
    rows = [
        [
            rank,
            linked(item["token"], runs),
            number(item["id"], runs, "d"),
            number(item["count"], runs, ",d"),
            number(item["count"] / train["tokens"], runs, ".1%"),
        ]
        for rank, item in enumerate(train["most_frequent"], start=1)
    ]
    head = ["rank", "token", "id", "occurrences", "share of the text"]
    return Table(head, rows, "The ten most frequent tokens of the training split.")


COUNTED = "task=describe data.vocabulary.min_frequency=1 data.valid_fraction=0"
SMALL_RNN = (
    "task=describe data=lee_news data.valid_fraction=0 model=rnn model.embedding_size=1 "
    "model.hidden_size=3 model.layers=2 model.tie_weights=false"
)
STUDY = Study(
    "zipf",
    (
        Job(LABEL, ("data=lee_news", *COUNTED.split())),
        *(
            Job(f"bias {bias}", (*SMALL_RNN.split(), f"model.bias={bias}"), fixed=True)
            for bias in BY_HAND
        ),
    ),
    (Question("zipf", "The text", QUESTION, answer),),
)
AG_NEWS_STUDY = Study(
    "ag_news",
    (
        Job(LABEL, ("data=ag_news", *COUNTED.split())),
        *(
            Job(
                cell,
                (f"experiment=lab/{cell}", "training.max_steps=20", "evaluation.protocol=last"),
                alone=True,
            )
            for cell in LAB_SPEED
        ),
    ),
    (Question("ag_news", "AG News, the lab's text", QUESTION, answer_ag_news),),
    corpus="ag_news",
)
TIME_MACHINE_STUDY = Study(
    "time_machine_words",
    (Job(LABEL, ("data=time_machine", "data/tokenizer=word", *COUNTED.split())),),
    (
        Question(
            "time_machine_words", "The words of The Time Machine", QUESTION, answer_time_machine
        ),
    ),
    corpus="time_machine",
)
