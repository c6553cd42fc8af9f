"""All models on one test set: n-grams, one of them with a cache, the three cells and a Transformer,
and each network with the 5-gram mixed in."""

from __future__ import annotations

from experiments import study
from experiments.study import CELLS, Column, Job, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, sentence, shown
from unroll.report.runs import Measured, measured
from unroll.report.verdict import verdict

NGRAM = "5-gram"
COUNTED = {"trigram": "model.order=3", NGRAM: "model.order=5"}
NGRAM_JOBS = study.grid(f"{study.PROFILE} model=ngram", COUNTED, seeds=(1,))
TRANSFORMER = "Transformer"
TUNED = {**study.TUNED, TRANSFORMER: study.tuned("transformer")}
NEURAL = tuple(TUNED)
MIXED = {name: f"{name} and 5-gram" for name in NEURAL}
CACHED = "5-gram and cache"
CACHE = ("evaluation.cache.size=500", "evaluation.cache.theta=0", "evaluation.cache.weight=0.1")
ADAPTED = {CACHED: "cache", **dict.fromkeys(MIXED.values(), "mixture")}
WHAT = {
    "trigram": "counts, Kneser-Ney smoothing",
    NGRAM: "counts, Kneser-Ney smoothing",
    CACHED: "a tenth of each probability is the token's share among the last 500",
    **{cell: "one layer, softmax and embedding share one table" for cell in CELLS},
    TRANSFORMER: "two layers of causal attention, the same table",
    **dict.fromkeys(MIXED.values(), "both probabilities, shares fitted on the validation split"),
}


def adapt(results: Results) -> tuple[Job, ...]:
    """The 5-gram with a cache, and a mixture of each network with the 5-gram."""
    ngram = results[NGRAM][0].run_id
    return (
        Job(CACHED, ("task=evaluate", f"run={ngram}", *CACHE)),
        *(
            Job(label, ("task=evaluate", f"run={run.run_id}", f"evaluation.mixture=[{ngram}]"))
            for name, label in MIXED.items()
            for run in results[name]
        ),
    )


def figure(results: Results, label: str) -> Measured:
    """Test perplexity of a row; that of a count is exact."""
    key = study.perplexity_of(ADAPTED.get(label))
    return measured(results[label], key, exact=label in (*COUNTED, CACHED))


def answer(results: Results) -> Answer:
    test = {label: figure(results, label) for label in WHAT}
    against = study.joined(verdict((name, NGRAM), test[name], test[NGRAM]) for name in NEURAL)
    return Answer(
        [
            sentence("Each compared with the Kneser-Ney 5-gram, test perplexity: {}.", against),
            sentence(
                "Each compared with the 5-gram and its cache: {}.",
                study.joined(verdict((name, CACHED), test[name], test[CACHED]) for name in NEURAL),
            ),
            sentence(
                "With the 5-gram mixed in, compared with the model alone: {}.",
                study.joined(
                    verdict((label, name), test[label], test[name]) for name, label in MIXED.items()
                ),
            ),
        ],
        [
            plots.bars(
                "models",
                "Test perplexity of every model: a bar at the mean, a mark for each seed.",
                "model",
                "test perplexity",
                test,
            ),
            study.table(
                "model",
                results,
                WHAT,
                [study.PARAMETERS, Column("vocabulary", "data.vocabulary_size", ",.0f")],
                "All read the same test split as one stream. Parameters of an n-gram: the numbers "
                "that it keeps; of a mixture: those of the network.",
                {
                    "test perplexity": lambda label: shown(test[label]),
                    "what it is": lambda label: WHAT[label],
                },
            ),
        ],
        found=sentence("test perplexity: {}.", against),
    )


STUDY = Study(
    "models",
    (*study.grid(study.PROFILE, TUNED), *NGRAM_JOBS),
    (
        Question(
            "models",
            "All models",
            "What does each model reach on one test set, and what do counts add to a network?",
            answer,
            first=True,
        ),
    ),
    then=adapt,
)
