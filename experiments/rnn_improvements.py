"""Question 10 of the lab: if it must be the RNN, what in the code can be improved?

The lab's RNN at a quarter of its width; then one change at a time, all of them, and all but one;
each trained until its validation perplexity stops falling. One more change was tried and left out:
it is shown alone and added to all. The lab's LSTM with all changes says how far there is to go.
"""

from __future__ import annotations

import math

from experiments import study
from experiments.study import TEST, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, sentence, shown
from unroll.report.runs import Measured
from unroll.report.verdict import verdict

BASELINE, ALL = "the lab's RNN", "all together"
LSTM = "LSTM, all together"
WINDOW = 20
LAB = (
    f"{study.PROFILE} "
    f"data.limit={5 if study.FULL else 60} data/batching=windows "
    f"data.batching.length={WINDOW} data.batching.batch_size=128 model.hidden_size=128 "
    "training.epochs=40 training.patience=2 training.min_gain=0.02 sampling.prefix_length=10 "
    "sampling.length=30"
)
"""A window costs as many steps as it has tokens, and has one target. So a part of the text has to
do, and shorter windows than the lab's 100 words, more of them in a batch."""
CHANGES = {
    "carried state": "data/batching=sequential data.batching.length=35 data.batching.batch_size=8",
    "clipping": "training.clip_norm=1.0",
    "dropout": "training.dropout=0.4",
    "tied weights": "model.tie_weights=true",
    "schedule": "optimizer.learning_rate=4e-3 optimizer/schedule=cosine training.epochs=12 "
    "training.patience=null",
}
EVERY = " ".join(CHANGES.values())
ORTHOGONAL, ADDED = "orthogonal", "all and orthogonal"
LEFT_OUT = "model.initialization=orthogonal"
EXPLAINED = {
    BASELINE: f"windows of {WINDOW} tokens, each with the next token as its one target",
    "carried state": "every token is a target; truncation at 35 steps with the state carried",
    "clipping": "gradient norm clipped at 1",
    "dropout": "dropout of 0.4 on embedding, between layers and on output, for so little text",
    "tied weights": "one matrix for embedding and softmax",
    "schedule": "learning rate 4e-3 instead of 1e-3, falling along a cosine over twelve epochs",
    ALL: "all of these changes",
    ORTHOGONAL: "recurrent matrices orthogonal at the start; not one of all",
    ADDED: "all changes and the orthogonal start",
}


def without(change: str) -> str:
    """The label of the runs with all changes but one."""
    return f"all but {change}"


def variants() -> dict[str, str]:
    """The overrides of each label."""
    rnn = {
        BASELINE: "",
        **CHANGES,
        ALL: EVERY,
        **{
            without(change): " ".join(words for name, words in CHANGES.items() if name != change)
            for change in CHANGES
        },
        ORTHOGONAL: LEFT_OUT,
        ADDED: f"{EVERY} {LEFT_OUT}",
    }
    return {
        **{label: f"experiment=lab/rnn {LAB} {words}" for label, words in rnn.items()},
        LSTM: f"experiment=lab/lstm {LAB} {EVERY}",
    }


def covered(test: dict[str, Measured], label: str) -> Measured:
    """Percent of the distance from the lab's RNN to the improved LSTM, in nats a token: what is
    left where every choice but the cell is as good."""
    values = tuple(
        100 * math.log(start / found) / math.log(start / end)
        for start, found, end in zip(
            *(test[each].values for each in (BASELINE, label, LSTM)), strict=True
        )
    )
    return Measured(values, test[label].runs)


def answer(results: Results) -> Answer:
    test = study.measures(results, results, TEST)
    shares = {label: covered(test, label) for label in (*CHANGES, ALL)}
    removed = [without(change) for change in CHANGES]
    return Answer(
        [
            sentence(
                "All changes together, test perplexity: {}. The improved RNN covers {}% of the "
                "distance from the lab's RNN to the LSTM with the same changes, in nats a token.",
                verdict((ALL, BASELINE), test[ALL], test[BASELINE]),
                shown(shares[ALL], ".0f"),
            ),
            sentence(
                "Compared with that LSTM: {}.",
                verdict((ALL, LSTM), test[ALL], test[LSTM]),
            ),
            sentence(
                "One change at a time: {}.",
                study.joined(
                    verdict((change, BASELINE), test[change], test[BASELINE]) for change in CHANGES
                ),
            ),
            sentence(
                "Tried and left out, recurrent matrices that are orthogonal at the start: {}; {}.",
                verdict((ORTHOGONAL, BASELINE), test[ORTHOGONAL], test[BASELINE]),
                verdict((ADDED, ALL), test[ADDED], test[ALL]),
            ),
            sentence(
                "A window has one target. In sequence every token is a target, so an epoch takes a "
                "fraction of the products, and the state brings what came before the window."
            ),
        ],
        [
            plots.bars(
                "rnn_improvements",
                "Test perplexity of the RNN with one change, with all, and with all but one: a bar "
                "at the mean, a mark for each seed.",
                "change",
                {"test perplexity": {label: test[label] for label in (*EXPLAINED, *removed)}},
            ),
            study.table(
                "change",
                results,
                [*EXPLAINED, LSTM],
                [study.PERPLEXITY, study.EPOCHS],
                "Compared with all together: the runs with all changes but this one. Covered: of "
                "the distance to the LSTM with all changes.",
                {
                    "covered (%)": lambda name: (
                        shown(shares[name], ".0f") if name in shares else ""
                    ),
                    "what it is": lambda name: EXPLAINED.get(name, ""),
                    f"compared with {BASELINE}": lambda name: (
                        ""
                        if name in (BASELINE, LSTM)
                        else verdict((name, BASELINE), test[name], test[BASELINE]).short()
                    ),
                    f"without it, compared with {ALL}": lambda name: (
                        verdict((without(name), ALL), test[without(name)], test[ALL]).short()
                        if name in CHANGES
                        else ""
                    ),
                },
            ),
            study.drawn_curves(
                "rnn_improvements_curves",
                "Validation perplexity, a line for each seed.",
                results,
                [BASELINE, "carried state", ALL, LSTM],
                {"validation perplexity (log scale)": "valid/perplexity"},
                ["validation perplexity (log scale)"],
            ),
        ],
        found=sentence(
            "test perplexity: {}; {}.",
            verdict((ALL, BASELINE), test[ALL], test[BASELINE]),
            verdict((ALL, LSTM), test[ALL], test[LSTM]),
        ),
    )


STUDY = Study(
    "rnn_improvements",
    study.grid("", variants()),
    (
        Question(
            "rnn_improvements",
            "Improving the RNN",
            "If it must be the RNN, what in the lab's code can be improved?",
            answer,
            lab=10,
        ),
    ),
)
