"""The text before any model: its lengths, its frequencies, and how much of it the lab uses."""

from __future__ import annotations

from typing import Any

from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, linked, number, sentence
from unroll.report.runs import Record

LABEL = "describe"


def draw(results: Results) -> Section:
    (record,) = results[LABEL]
    result = record.result()
    train = result["splits"]["train"]
    return Section(
        "zipf",
        "The text",
        "What does the text look like, and how much of it does the lab's task use?",
        [
            *_what_it_looks_like(record, result, train),
            *(_what_the_lab_uses(record, *split) for split in _named(result["splits"])),
        ],
        [
            _frequencies(result["zipf"]),
            _lengths(train),
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


def _frequencies(laws: dict[str, Any]) -> Drawing:
    figure, axes = new()
    for position, (name, law) in enumerate(laws.items()):
        fit, looks = law["fit"], style(position)
        label = name
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
        "zipf_frequencies",
        "Occurrences of unigrams, bigrams and trigrams of the training split against their rank, "
        "both axes logarithmic. The thin black lines are fitted over the ranks that they span: "
        "from the tenth to the last that occurs five times.",
        figure,
    )


def _lengths(train: dict[str, Any]) -> Drawing:
    figure, axes = new(height=3.0)
    histogram, window = train["lengths"]["histogram"], train["window"]
    starts = [histogram["width"] * position for position in range(len(histogram["counts"]))]
    looks = {"color": "#9fc5e8", "edgecolor": "#1b1b1b", "linewidth": 0.6}
    axes.bar(starts, histogram["counts"], histogram["width"], align="edge", **looks)
    axes.axvline(window, color="black", linestyle="--", label=f"{window} tokens")
    named(axes, "length (tokens)", "documents")
    axes.legend(loc="upper right")
    return Drawing(
        "zipf_lengths",
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


STUDY = Study(
    "zipf",
    (
        Job(
            LABEL,
            ("task=describe", "data.vocabulary.min_frequency=1", "data.valid_fraction=0"),
        ),
    ),
    draw,
)
