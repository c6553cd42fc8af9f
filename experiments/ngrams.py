"""n-gram models beside recurrent ones: on the corpus at hand, and on Penn Treebank, where figures
are published (seed documents 002 and 003)."""

from __future__ import annotations

from collections.abc import Mapping

from experiments import cells
from experiments.cells import CELLS, SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import logarithmic, named, new, style
from unroll.report.page import Drawing, Published, Section, Table, number, sentence, shown
from unroll.report.runs import measured

KEY = "test/perplexity"
SMOOTHINGS = {"kneser_ney": "Kneser-Ney", "laplace": "Laplace", "none": "no smoothing"}
ORDERS = (1, 2, 3, 5)


def label(smoothing: str, order: int) -> str:
    return f"{order}-gram, {SMOOTHINGS[smoothing]}"


MODELS = {
    label(smoothing, order): (
        "model=ngram",
        f"model.order={order}",
        f"model.smoothing={smoothing}",
    )
    for smoothing in SMOOTHINGS
    for order in ORDERS
}


def draw(results: Results) -> list[Section]:
    return [_section(results, "ngrams", "n-gram models", [])]


def draw_penn_treebank(results: Results) -> list[Section]:
    rows = [
        ("trigram", "148 (Kneser-Ney); “about 120”", label("kneser_ney", 3), ""),
        ("5-gram", "141.2", label("kneser_ney", 5), ""),
        (
            "LSTM",
            "about 80",
            LSTM,
            "ours is small and learns for two epochs; the document's own size and dropout run "
            "by experiment=penn_treebank/lstm, which takes hours on two cores",
        ),
    ]
    published = [
        Published(
            f"Penn Treebank, {what}: test perplexity",
            "002",
            figure,
            shown(measured(results[name], KEY)),
            remark,
        )
        for what, figure, name, remark in rows
    ]
    published.append(
        Published(
            "Penn Treebank, Transformer: test perplexity",
            "002",
            "30 to 40",
            "-",
            "not built: Unroll compares recurrent models and n-grams",
        )
    )
    return [_section(results, "penn_treebank", "n-grams on Penn Treebank", published)]


def _section(results: Results, name: str, title: str, published: list[Published]) -> Section:
    found = {each: measured(records, KEY) for each, records in results.items()}
    counted = {each: found[each] for each in MODELS}
    best = min(counted, key=lambda each: counted[each].mean)
    neural = {each: found[each] for each in found if each not in MODELS}
    ahead = min(neural, key=lambda each: neural[each].mean)
    laplace = label("laplace", 3)
    answer = [
        sentence(
            "The best of the n-grams is the {}, at a test perplexity of {}; the {} has {}. "
            "Laplace smoothing of a trigram gives {}, {} times as much: it takes its mass from "
            "what was seen once and spreads it over everything.",
            best,
            shown(found[best]),
            _named(ahead),
            shown(found[ahead]),
            shown(found[laplace], ",.0f"),
            number(found[laplace].mean / found[best].mean, found[laplace].runs),
        ),
        sentence(
            "Counting takes {} seconds, training the {} {}. Without smoothing a single unseen "
            "word or pair makes the perplexity infinite.",
            number(results[best][0].seconds, found[best].runs),
            _named(ahead),
            number(results[ahead][0].seconds, found[ahead].runs),
        ),
    ]
    return Section(
        name,
        title,
        "What do n-gram models reach beside recurrent ones, and what does smoothing change?",
        answer,
        [_lines(results, name, found), _table(results)],
        published=published,
    )


def _named(name: str) -> str:
    return name.upper() if name in CELLS else name


def _lines(results: Results, name: str, found: Mapping[str, object]) -> Drawing:
    figure, axes = new()
    for position, (smoothing, words) in enumerate(SMOOTHINGS.items()):
        points = [(order, measured(results[label(smoothing, order)], KEY).mean) for order in ORDERS]
        points = [point for point in points if point[1] < float("inf")]
        if points:
            axes.plot(*zip(*points, strict=True), label=words, **style(position))
    for position, other in enumerate(key for key in found if key not in MODELS):
        looks = style(len(SMOOTHINGS) + position) | {"marker": ""}
        axes.axhline(measured(results[other], KEY).mean, label=_named(other), **looks)
    logarithmic(axes)
    axes.set_xticks(ORDERS)
    named(axes, "order (words)", "test perplexity (log scale)")
    axes.legend(fontsize=8)
    return Drawing(name, "Test perplexity against order; level lines: recurrent models.", figure)


def _table(results: Results) -> Table:
    rows = []
    for name, records in results.items():
        runs = [record.run_id for record in records]
        rows.append(
            [
                _named(name),
                shown(measured(records, KEY), ",.1f"),
                shown(measured(records, "train/perplexity"), ",.1f"),
                number(float(records[0].params["model.parameters"]), runs, ",.0f"),
                number(records[0].seconds, runs),
            ]
        )
    return Table(
        ["model", "test perplexity", "training perplexity", "numbers kept", "seconds of the run"],
        rows,
        f"n-grams know no chance; recurrent models: {len(SEEDS)} seeds where a spread is given. "
        "Laplace smoothing backs off to single words, as the document prints it, so that a longer "
        "context, which is seldom seen, does less harm.",
    )


STUDY = Study(
    "ngrams",
    (
        *(Job(name, ("data.vocabulary.min_frequency=2", *words)) for name, words in MODELS.items()),
        *cells.STUDY.jobs,
    ),
    draw,
)

LSTM = "LSTM of 200 units"
PENN_TREEBANK_STUDY = Study(
    "penn_treebank",
    (
        *(Job(name, ("data=penn_treebank", *words)) for name, words in MODELS.items()),
        Job(
            LSTM,
            (
                "data=penn_treebank",
                "model=lstm",
                "model.embedding_size=200",
                "model.hidden_size=200",
                "training.dropout=0.2",
                "training.epochs=2",
            ),
        ),
    ),
    draw_penn_treebank,
    corpus="penn_treebank",
)
