"""n-gram models beside recurrent ones: on the corpus at hand, and on Penn Treebank, where figures
are published (seed documents 002 and 003)."""

from __future__ import annotations

from experiments import cells, speed, study
from experiments.study import CELLS, Column, Job, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Published, Table, sentence, shown, written
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
EARNEST = "tied LSTM"
NETWORK = (
    {EARNEST: "experiment=penn_treebank/tied"}
    if study.FULL
    else {
        LSTM: "data=penn_treebank model=lstm model.embedding_size=200 model.hidden_size=200 "
        "model.tie_weights=false training.dropout=0.2 training.epochs=2 "
        "optimizer/schedule=constant optimizer.learning_rate=3e-3"
    }
)
"""What is trained on Penn Treebank."""
CACHE = ("evaluation.cache.size=500", "evaluation.cache.theta=1.4", "evaluation.cache.weight=0.1")
"""The best on the validation split of theta 0.7, 1, 1.4, 2 and 3, shares 0.05, 0.1, 0.15 and 0.2,
and 500 and 1,000 tokens."""
NEURAL_CACHE = f"{EARNEST}, neural cache"
BOTH = f"{EARNEST}, neural cache and 5-gram"
ADAPTED = {NEURAL_CACHE: "cache", BOTH: "cache_and_mixture"}


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
        name: measured(runs, study.perplexity_of(ADAPTED.get(name)), exact=name in MODELS)
        for name, runs in results.items()
        if name in (*MODELS, *CELLS, *NETWORK, *ADAPTED)
    }


def adapt(results: Results) -> tuple[Job, ...]:
    """The tied LSTM with a cache, and with a 5-gram mixed in too."""
    if EARNEST not in results:
        return ()
    ngram = results[label("kneser_ney", 5)][0].run_id
    score = ("task=evaluate", f"run={results[EARNEST][0].run_id}")
    return (
        Job(NEURAL_CACHE, (*score, *CACHE)),
        Job(BOTH, (*score, f"evaluation.mixture=[{ngram}]", *CACHE)),
    )


def answer(results: Results) -> Answer:
    return _answer(results, "ngrams")


def answer_penn_treebank(results: Results) -> Answer:
    made = _answer(results, "penn_treebank")
    test = found(results)
    (lstm,) = NETWORK
    rows = [
        ("trigram", "002", "148 (Kneser-Ney); “about 120”", label("kneser_ney", 3), ""),
        ("Kneser-Ney 5-gram", MIKOLOV, "141.2", label("kneser_ney", 5), ""),
        ("Good-Turing trigram", MIKOLOV, "165.2", label("good_turing", 3), ""),
        ("Good-Turing 5-gram", MIKOLOV, "162.3", label("good_turing", 5), ""),
        ("LSTM", "002", "about 80", lstm, REMARKS[lstm]),
        ("medium LSTM", ZAREMBA, "82.7", lstm, REMARKS[lstm]),
        *(("LSTM", "002", "about 80", name, REMARKS[name]) for name in ADAPTED if name in test),
    ]
    made.published = [
        Published(f"{TREEBANK}, {what}: test perplexity", source, figure, shown(test[name]), remark)
        for what, source, figure, name, remark in rows
    ]
    made.published.append(
        Published(
            f"{TREEBANK}, Transformer: test perplexity",
            "002",
            "30 to 40",
            "-",
            "not run: of models that were trained on other, vast texts",
        )
    )
    return made


TREEBANK = "Penn Treebank"
MIKOLOV, ZAREMBA = "Mikolov et al. 2011", "Zaremba et al. 2014"
REMARKS = {
    LSTM: "ours: one layer of 200 units, two epochs; experiment=penn_treebank/tied where FULL=1",
    EARNEST: "ours: experiment=penn_treebank/tied, no text but the training split",
    NEURAL_CACHE: "ours: the same weights, with a neural cache of 500 tokens",
    BOTH: "ours: the same weights, with that cache and the 5-gram mixed in",
}
EPOCH = 929_589
"""Tokens of the training split."""
LARGE = (
    "experiment=penn_treebank/lstm data.batching.batch_size=20 model.embedding_size=1500 "
    "model.hidden_size=1500 model.dropout=0.65"
)
TOO_LONG = {
    "large LSTM": (ZAREMBA, "78.4", LARGE, 55 * EPOCH),
    "large LSTM, tied": (
        "PyTorch's example",
        "72.30",
        f"{LARGE} model.tie_weights=true",
        40 * EPOCH,
    ),
    "AWD-LSTM": ("Merity et al. 2018", "57.3", "experiment=penn_treebank/awd_lstm", 500 * EPOCH),
    "Mogrifier with dynamic evaluation": (
        "Melis et al. 2020",
        "44.9",
        "experiment=penn_treebank/mogrifier",
        200_000 * 64 * 70,
    ),
}
"""What two cores do not train in a session: source and figure, overrides, targets to learn."""
TOO_LONG_STEPS = 20


def answer_too_long(results: Results) -> Answer:
    rows, published, hours_of = [], [], {}
    for what, (source, figure, _, targets) in TOO_LONG.items():
        (record,) = results[speed.label(what)]
        rate, run = record.value(speed.SPEED), [record.run_id]
        hours_of[what] = Measured((targets / rate / 3600,), tuple(run), exact=True)
        hours = shown(hours_of[what], ",.0f")
        rows.append(
            [
                what,
                study.param([record], "model.parameters"),
                written(targets, ",.0f"),
                speed.pace([record]),
                hours,
            ]
        )
        remark = sentence("not run; extrapolated: {} hours on one thread", hours)
        published.append(
            Published(f"{TREEBANK}, {what}: test perplexity", source, figure, "-", remark)
        )
    head = ["model", "parameters", "targets to learn", speed.HEAD, "hours (extrapolated)"]
    return Answer(
        [
            sentence(
                "None of these was trained to its end here. Each learned for {} steps alone on one "
                "thread; hours are the targets of the published training divided by that speed, "
                "without validation.",
                TOO_LONG_STEPS,
            )
        ],
        [
            plots.bars(
                "penn_treebank_large",
                "Hours of each training on one thread, extrapolated.",
                "model",
                {"hours": hours_of},
            ),
            Table(head, rows, speed.CAPTION),
        ],
        published,
    )


def _answer(results: Results, name: str) -> Answer:
    test = found(results)
    neural = [each for each in test if each not in (*MODELS, *ADAPTED)]
    adapted = [each for each in ADAPTED if each in test]
    best, trigram, laplace = label("kneser_ney", 5), label("kneser_ney", 3), label("laplace", 3)
    return Answer(
        [
            sentence(
                "Recurrent models compared with a Kneser-Ney 5-gram, test perplexity: {}.",
                study.joined(verdict((each, best), test[each], test[best]) for each in neural),
            ),
            *(
                [
                    sentence(
                        "With a neural cache, and with the 5-gram mixed in too, their shares "
                        "chosen on the validation split: {}.",
                        study.joined(
                            verdict((name, EARNEST), test[name], test[EARNEST]) for name in adapted
                        ),
                    )
                ]
                if adapted
                else []
            ),
            sentence(
                "Smoothing of a trigram: {}. Laplace smoothing adds one to the count of each "
                "context and shares that one out as single words occur. Without smoothing a single "
                "unseen word or pair makes the perplexity infinite.",
                verdict((trigram, laplace), test[trigram], test[laplace]),
            ),
        ],
        [
            plots.lines(
                name,
                "Test perplexity against order; level lines: recurrent models, mean over seeds.",
                "order (tokens)",
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
                [Column("training perplexity", "train/perplexity", ",.1f"), study.PARAMETERS],
                "n-grams have no seed; parameters of an n-gram model: the numbers it keeps. "
                "Training perplexity of a network: that of the last steps of its training, with "
                "dropout on where there is any. "
                "Laplace smoothing backs off to single words, as the document prints it; additive "
                "smoothing adds 1 to the count of every word, seen or not.",
                {"test perplexity": lambda name: shown(test[name])},
            ),
        ],
    )


QUESTION = (
    "What do n-gram models reach compared with recurrent ones, and what does smoothing change?"
)
STUDY = Study(
    "ngrams",
    (
        *study.grid(study.PROFILE, MODELS, seeds=(1,)),
        *cells.JOBS,
    ),
    (Question("ngrams", "n-gram models", QUESTION, answer),),
)
PENN_TREEBANK_STUDY = Study(
    "penn_treebank",
    (
        *study.grid("", NETWORK, seeds=(1,)),
        *study.grid("data=penn_treebank", MODELS, seeds=(1,)),
    ),
    (Question("penn_treebank", "n-grams on Penn Treebank", QUESTION, answer_penn_treebank),),
    then=adapt,
    corpus="penn_treebank",
)
TOO_LONG_STUDY = Study(
    "penn_treebank_large",
    speed.timed(
        "",
        {what: words for what, (_, _, words, _) in TOO_LONG.items()},
        steps=TOO_LONG_STEPS,
        seeds=(1,),
    ),
    (
        Question(
            "penn_treebank_large",
            "Large models of Penn Treebank",
            "How long would the published trainings take on this machine?",
            answer_too_long,
        ),
    ),
    corpus="penn_treebank",
)
