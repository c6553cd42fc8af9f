"""The text before any model: its lengths, its frequencies, and how much of it the lab uses; and
what the seed documents count by hand."""

from __future__ import annotations

from typing import Any

from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Published, Section, Table, linked, number, sentence
from unroll.report.runs import Record

LABEL = "describe"
BY_HAND = "a small RNN"


def draw(results: Results) -> list[Section]:
    (record,), (small,) = results[LABEL], results[BY_HAND]
    section = _section(record, "zipf", "The text")
    section.published = _by_hand(small)
    if record.params["data.name"] == "lee_news":
        section.published += _counted(record, "Lee news", "000", LEE_NEWS)
    return [section]


def draw_ag_news(results: Results) -> list[Section]:
    (record,) = results[LABEL]
    section = _section(record, "ag_news", "AG News, the lab's text")
    section.published = _counted(record, "AG News", "000", AG_NEWS)
    for cell, figure in LAB_SPEED.items():
        (run,) = results[cell]
        section.published.append(
            Published(
                f"AG News, the lab's {cell.upper()}: targets learnt a second",
                "000",
                f"{figure}",
                number(run.metric("tokens_per_second"), [run.run_id], ".0f"),
                "published: two cores; ours: one thread, in a study",
            )
        )
    return [section]


def draw_time_machine(results: Results) -> list[Section]:
    (record,) = results[LABEL]
    section = _section(record, "time_machine_words", "The words of The Time Machine")
    found = {
        item["token"]: item["count"] for item in record.result()["splits"]["train"]["most_frequent"]
    }
    section.published = [
        Published(
            f"The Time Machine: how often “{word}” stands",
            "003",
            f"{count:,}",
            number(found.get(word, float("nan")), [record.run_id], ",.0f"),
        )
        for word, count in TEN_WORDS.items()
    ]
    return [section]


Counted = dict[str, tuple[str, str]]
"""What is counted, by where the run keeps it: a split's key, and the published figure."""

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


def _counted(record: Record, text: str, source: str, counted: Counted) -> list[Published]:
    return [
        Published(
            f"{text}: {what}",
            source,
            figure,
            number(record.metric(key), [record.run_id], ",.0f"),
        )
        for what, (key, figure) in counted.items()
    ]


def _by_hand(record: Record) -> list[Published]:
    """Two RNN layers of 3 units over 1 input with 1 output, counted by hand to 40 parameters.

    The run has the same two layers; its softmax has as many outputs as the vocabulary has tokens,
    each of which costs what the one output costs.
    """
    layers = record.result()["model"]["layers"]
    recurrent = [layer for layer in layers if layer["layer"].startswith("rnn")]
    output = layers[-1]["parameters"] / record.result()["vocabulary_size"]
    both = sum(layer["parameters"] for layer in recurrent) + output
    second = sum(layer["shapes"]["bias_hh"][0] for layer in recurrent)
    return [
        Published(
            f"parameters of a small RNN, {what}",
            "001",
            figure,
            number(ours, [record.run_id], ".0f"),
        )
        for what, figure, ours in (
            ("one bias vector a layer", "40", both - second),
            ("two, as PyTorch keeps them", "46", both),
        )
    ]


def _section(record: Record, name: str, title: str) -> Section:
    result = record.result()
    train = result["splits"]["train"]
    return Section(
        name,
        title,
        "What does the text look like, and how much of it does the lab's task use?",
        [
            *_what_it_looks_like(record, result, train),
            *(_what_the_lab_uses(record, *split) for split in _named(result["splits"])),
        ],
        [
            _frequencies(name, result["zipf"]),
            _lengths(name, train),
            _most_frequent(record, train),
        ],
    )


def _named(splits: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The splits to speak of, as a sentence names them."""
    names = {"train": "training", "test": "test"}
    return [(name, splits[split]) for split, name in names.items() if split in splits]


def _what_it_looks_like(record: Record, result: dict[str, Any], train: dict[str, Any]) -> list[Any]:
    def count(value: float) -> object:
        return number(value, [record.run_id], ",.0f")

    def exponent(name: str) -> object:
        return number(record.metric(f"zipf/{name}"), [record.run_id], ".2f")

    ten = sum(item["count"] for item in train["most_frequent"]) / train["tokens"]
    trigrams = result["zipf"]["trigrams"]
    once = trigrams["once"] / trigrams["distinct"]
    lengths = train["lengths"]
    return [
        sentence(
            "{} training documents hold {} tokens of {} kinds. Half of the documents are between "
            "{} and {} tokens long; the shortest has {}, the longest {}, and the mean is {}.",
            count(train["documents"]),
            count(train["tokens"]),
            count(train["types"]),
            count(lengths["lower_quartile"]),
            count(lengths["upper_quartile"]),
            count(lengths["minimum"]),
            count(lengths["maximum"]),
            count(lengths["mean"]),
        ),
        sentence(
            "Few kinds do most of the work: the ten most frequent make up {} of the text. How "
            "often a token occurs falls as a power of its rank, with exponent {}; for bigrams it "
            "is {}, for trigrams {}. {} of the distinct trigrams occur a single time, which is "
            "what counting models have to smooth away.",
            number(ten, [record.run_id], ".0%"),
            exponent("unigrams"),
            exponent("bigrams"),
            exponent("trigrams"),
            number(once, [record.run_id], ".0%"),
        ),
    ]


def _what_the_lab_uses(record: Record, split: str, figures: dict[str, Any]) -> object:
    def count(value: float) -> object:
        return number(value, [record.run_id], ",.0f")

    def share(value: float) -> object:
        return number(value, [record.run_id], ".2%")

    return sentence(
        "In the {} split {} of {} documents ({}) are longer than {} tokens, and the lab's task, "
        "which reads {} and predicts the next one, finds {} windows in them: {} of the tokens are "
        "ever predicted. {} of the tokens are unknown.",
        split,
        count(figures["longer_documents"]),
        count(figures["documents"]),
        share(figures["longer_rate"]),
        figures["window"],
        figures["window"],
        count(figures["windows"]),
        share(figures["target_rate"]),
        share(figures["unknown_rate"]),
    )


def _frequencies(name: str, laws: dict[str, Any]) -> Drawing:
    figure, axes = new()
    for position, (grams, law) in enumerate(laws.items()):
        fit, looks = law["fit"], style(position)
        label = grams
        if fit["exponent"] is not None:
            ends = (fit["first_rank"], fit["last_rank"])
            line = [fit["scale"] * rank ** -fit["exponent"] for rank in ends]
            axes.plot(ends, line, color="black", linewidth=0.8, zorder=3)
            label += f", exponent {fit['exponent']:.2f}"
        axes.plot(*zip(*law["points"], strict=True), label=label, **looks | {"markersize": 3})
    axes.set_xscale("log")
    axes.set_yscale("log")
    named(axes, "rank", "occurrences")
    axes.legend(loc="upper right")
    return Drawing(
        f"{name}_frequencies",
        "Occurrences of unigrams, bigrams and trigrams of the training split against their rank, "
        "both axes logarithmic. The thin black lines are fitted over the ranks that they span: "
        "from the tenth to the last that occurs five times.",
        figure,
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
    rows = [
        [
            rank,
            linked(item["token"], [record.run_id]),
            number(item["id"], [record.run_id], "d"),
            number(item["count"], [record.run_id], ",d"),
            number(item["count"] / train["tokens"], [record.run_id], ".1%"),
        ]
        for rank, item in enumerate(train["most_frequent"], start=1)
    ]
    head = ["rank", "token", "id", "occurrences", "share of the text"]
    return Table(head, rows, "The ten most frequent tokens of the training split.")


COUNTED = ("task=describe", "data.vocabulary.min_frequency=1", "data.valid_fraction=0")
STUDY = Study(
    "zipf",
    (
        Job(LABEL, COUNTED),
        Job(
            BY_HAND,
            (
                "task=describe",
                "model=rnn",
                "model.embedding_size=1",
                "model.hidden_size=3",
                "model.layers=2",
                "data.valid_fraction=0",
            ),
        ),
    ),
    draw,
)
AG_NEWS_STUDY = Study(
    "ag_news",
    (
        Job(LABEL, ("data=ag_news", *COUNTED)),
        *(
            Job(
                cell,
                (f"experiment=lab/{cell}", "training.max_steps=4", "evaluation.protocol=last"),
                alone=True,
            )
            for cell in LAB_SPEED
        ),
    ),
    draw_ag_news,
    corpus="ag_news",
)
TIME_MACHINE_STUDY = Study(
    "time_machine_words",
    (Job(LABEL, ("data=time_machine", "data/tokenizer=word", *COUNTED)),),
    draw_time_machine,
    corpus="time_machine",
)
