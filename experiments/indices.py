"""Question 2 of the lab: why turn words into indices? An index selects a row of a table; the same
word as a one-hot vector selects it by a product with the whole table."""

from __future__ import annotations

from experiments import cells, speed, study
from experiments.study import TEST, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, sentence
from unroll.report.verdict import verdict

INPUTS = {"index and embedding": "", "one-hot vector": "model.one_hot=true"}
LABELS = {name: speed.label(name) for name in INPUTS}
# dropout on a one-hot vector would drop whole words, and one cannot share the softmax's table
BASE = f"{cells.BASE} {study.TUNED['LSTM']} model.embedding_dropout=0 model.tie_weights=false"


def answer(results: Results) -> Answer:
    found = {name: results[label] for name, label in LABELS.items()}
    rate = speed.speeds(results, list(INPUTS))
    test = study.measures(found, INPUTS, TEST)
    index, one_hot = INPUTS
    return Answer(
        [
            sentence(
                "A network multiplies numbers, so a word has to become one; and the number must "
                "have no meaning of its own, since no word is twice another. An index only names a "
                "row in a table of learned vectors. As a one-hot vector the same word is {} "
                "numbers, all zero except one.",
                study.param(found[index], "data.vocabulary_size"),
            ),
            sentence(
                "The embedding has one row for each token. Without it each of the LSTM's four "
                "input matrices has one, so that the parameters are {} with the embedding and {} "
                "without.",
                *(study.param(runs, "model.parameters") for runs in found.values()),
            ),
            sentence(
                "Targets learned a second: {}.",
                verdict((index, one_hot), rate[index], rate[one_hot], "higher", ",.0f"),
            ),
            sentence(
                "Test perplexity after {} steps: {}.",
                study.setting(found[index], "training.max_steps"),
                verdict((index, one_hot), test[index], test[one_hot]),
            ),
        ],
        [
            plots.bars(
                "indices_speed",
                "Training speed on one thread: a bar at the mean, a mark for each seed.",
                "input",
                "targets learned a second",
                rate,
            ),
            study.table(
                "input",
                found,
                INPUTS,
                [study.PARAMETERS, study.PERPLEXITY],
                f"{speed.CAPTION} The sentence and the figure compare means over seeds of these.",
                {speed.HEAD: lambda name: speed.pace(found[name])},
            ),
        ],
        found=sentence(
            "targets learned a second: {}.",
            verdict((index, one_hot), rate[index], rate[one_hot], "higher", ",.0f"),
        ),
    )


STUDY = Study(
    "indices",
    speed.timed(BASE, INPUTS),
    (Question("indices", "Why indices?", "Why turn words into indices?", answer, lab=2),),
    constants=("model.embedding_dropout", "model.tie_weights"),
)
