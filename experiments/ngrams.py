"""n-gram models beside recurrent ones: on the corpus at hand, and on Penn Treebank, where figures
are published (seed documents 002 and 003)."""

from __future__ import annotations

from experiments import cells, study
from experiments.study import CELLS, TEST, Column, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Published, sentence, shown
from unroll.report.runs import Measured, measured
from unroll.report.verdict import verdict

SMOOTHINGS = {
    "kneser_ney": "Kneser-Ney",
    "good_turing": "Good-Turing",
    "witten_bell": "Witten-Bell",
    "additive": "additive",
    "laplace": "Laplace",
    "none": "no smoothing",
}
ORDERS = (1, 2, 3, 5)
LSTM = "LSTM of 200 units"


def label(smoothing: str, order: int) -> str:
    return f"{order}-gram, {SMOOTHINGS[smoothing]}"


MODELS = {
    label(smoothing, order): f"model=ngram model.order={order} model.smoothing={smoothing}"
    for smoothing in SMOOTHINGS
    for order in ORDERS
}


def found(results: Results) -> dict[str, Measured]:
    """Test perplexity of every model; counting gives the same value every time."""
    return {
        name: measured(runs, TEST, exact=name in MODELS)
        for name, runs in results.items()
        if name in MODELS or name in CELLS or name == LSTM
    }


def answer(results: Results) -> Answer:
    return _answer(results, "ngrams")


def answer_penn_treebank(results: Results) -> Answer:
    made = _answer(results, "penn_treebank")
    test = found(results)
    made.published = [
        Published(
            f"Penn Treebank, {what}: test perplexity", "002", figure, shown(test[name]), remark
        )
        for what, figure, name, remark in (
            ("trigram", "148 (Kneser-Ney); “about 120”", label("kneser_ney", 3), ""),
            ("5-gram", "141.2", label("kneser_ney", 5), ""),
            ("Good-Turing trigram", "165.2 (Mikolov et al. 2011)", label("good_turing", 3), ""),
            ("Good-Turing 5-gram", "162.3 (Mikolov et al. 2011)", label("good_turing", 5), ""),
            (
                "LSTM",
                "about 80",
                LSTM,
                "ours: 200 units and two epochs. experiment=penn_treebank/lstm has the size and "
                "dropout of the document and takes hours on two cores",
            ),
        )
    ]
    made.published.append(
        Published(
            "Penn Treebank, Transformer: test perplexity",
            "002",
            "30 to 40",
            "-",
            "not built: Unroll compares recurrent models and n-grams",
        )
    )
    return made


def _answer(results: Results, name: str) -> Answer:
    test = found(results)
    neural = [each for each in test if each not in MODELS]
    best, trigram, laplace = label("kneser_ney", 5), label("kneser_ney", 3), label("laplace", 3)
    return Answer(
        [
            sentence(
                "Recurrent models compared with a Kneser-Ney 5-gram, test perplexity: {}.",
                study.joined(verdict((each, best), test[each], test[best]) for each in neural),
            ),
            sentence(
                "Smoothing of a trigram: {}. Laplace smoothing takes its probability from what was "
                "seen once and spreads it over the whole vocabulary. Without smoothing a single "
                "unseen word or pair makes the perplexity infinite.",
                verdict((trigram, laplace), test[trigram], test[laplace]),
            ),
        ],
        [
            plots.lines(
                name,
                "Test perplexity against order; level lines: recurrent models, mean over seeds.",
                "order (words)",
                ORDERS,
                {
                    "test perplexity (log scale)": {
                        words: [test[label(smoothing, order)] for order in ORDERS]
                        for smoothing, words in SMOOTHINGS.items()
                    }
                },
                log_y=True,
                levels={each: test[each].mean for each in neural},
            ),
            study.table(
                "model",
                results,
                test,
                [
                    study.PERPLEXITY,
                    Column("training perplexity", "train/perplexity", ",.1f"),
                    study.PARAMETERS,
                ],
                "n-grams have no seed; parameters of an n-gram model: the numbers it keeps. "
                "Laplace smoothing backs off to single words, as the document prints it; additive "
                "smoothing adds 1 to the count of every word, seen or not.",
            ),
        ],
    )


QUESTION = (
    "What do n-gram models reach compared with recurrent ones, and what does smoothing change?"
)
STUDY = Study(
    "ngrams",
    (
        *study.grid("data=lee_news data.vocabulary.min_frequency=2", MODELS, seeds=(1,)),
        *cells.JOBS,
    ),
    (Question("ngrams", "n-gram models", QUESTION, answer),),
)
PENN_TREEBANK_STUDY = Study(
    "penn_treebank",
    (
        *study.grid("data=penn_treebank", MODELS, seeds=(1,)),
        *study.grid(
            "data=penn_treebank model=lstm model.embedding_size=200 model.hidden_size=200 "
            "model.tie_weights=false "
            "training.dropout=0.2 training.epochs=2 optimizer/schedule=constant "
            "optimizer.learning_rate=3e-3",
            {LSTM: ""},
            seeds=(1,),
        ),
    ),
    (Question("penn_treebank", "n-grams on Penn Treebank", QUESTION, answer_penn_treebank),),
    corpus="penn_treebank",
)
