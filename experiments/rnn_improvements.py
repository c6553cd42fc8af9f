"""Question 10 of the lab: if it must be the RNN, what in the code can be improved?

The lab's RNN, narrower; then one change at a time, all of them, and all but one; without the
schedule each is trained until epochs bring hardly anything. The lab's LSTM with all changes says
how far there is to go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

from experiments import study
from experiments.study import TEST, Job, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, linked, number, sentence, shown
from unroll.report.runs import Measured, measured
from unroll.report.verdict import verdict

BASELINE, ALL = "the lab's RNN", "all together"
LSTM = "LSTM, all together"
WINDOWED = "the lab's RNN, read in windows"
READ_IN_WINDOWS = "test/window/perplexity"
LIMIT, WINDOW, UNITS, RATE = (2, 20, 128, "4e-3") if study.FULL else (60, 10, 64, "8e-3")
GAIN = 0.02
"""What one of two epochs has to take off the validation perplexity, or they are the last. With one
epoch and 3% dropout seemed to do harm: its trainings ended after five epochs instead of 27."""
LAB = (
    f"{study.PROFILE} "
    f"data.limit={LIMIT} data/batching=windows "
    f"data.batching.length={WINDOW} data.batching.batch_size=128 "
    f"model.embedding_size={UNITS} model.hidden_size={UNITS} "
    f"training.epochs=40 training.patience=2 training.min_gain={GAIN} sampling.prefix_length=10 "
    "sampling.length=30"
)
"""A window costs as many steps as it has tokens, and has one target. So a part of the text has to
do, and shorter windows than the lab's 100 words, more of them in a batch."""
CHANGES = {
    "carried state": "data/batching=sequential data.batching.length=35 data.batching.batch_size=8",
    "clipping": "training.clip_norm=1.0",
    "dropout": "training.dropout=0.4",
    "tied weights": "model.tie_weights=true",
    "rate and schedule": f"optimizer.learning_rate={RATE} optimizer/schedule=cosine "
    "training.epochs=12 training.patience=null",
}
EVERY = " ".join(CHANGES.values())
EXPLAINED = {
    BASELINE: f"two layers of {UNITS} units; windows of {WINDOW} tokens, each with one target",
    "carried state": "every token is a target; truncation at 35 steps with the state carried",
    "clipping": "gradient norm clipped at 1",
    "dropout": "dropout of 0.4 on embedding, between layers and on output, for so little text",
    "tied weights": "one matrix for embedding and softmax",
    "rate and schedule": f"learning rate {RATE} instead of 1e-3, along a cosine over twelve epochs",
    ALL: "all of these changes",
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
    }
    return {
        **{label: f"experiment=lab/rnn {LAB} {words}" for label, words in rnn.items()},
        LSTM: f"experiment=lab/lstm {LAB} {EVERY}",
    }


def in_windows(results: Results) -> tuple[Job, ...]:
    """The lab's RNN scored as it learned."""
    words = ("evaluation.protocol=window", f"evaluation.context={WINDOW}")
    return tuple(
        Job(WINDOWED, ("task=evaluate", f"run={record.run_id}", *words))
        for record in results[BASELINE]
    )


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
    test = study.measures(results, variants(), TEST)
    shares = {label: covered(test, label) for label in (*CHANGES, ALL)}
    removed = [without(change) for change in CHANGES]
    first = results[BASELINE][0].result()

    def beside_all(change: str) -> str:
        label = without(change)
        return verdict((label, ALL), test[label], test[ALL]).relation

    rows = [BASELINE, *CHANGES, ALL, *removed, LSTM]

    needed = [change for change in CHANGES if beside_all(change) == "behind"]
    spare = [change for change in CHANGES if change not in needed]
    runs = [run.run_id for label in (ALL, *removed) for run in results[label]]

    def compared(label: str, base: str) -> Markup:
        return verdict((label, base), test[label], test[base]).short()

    def listed(labels: Iterable[str], base: str) -> Markup:
        return study.joined(
            Markup("{} {}").format(label, compared(label, base)) for label in labels
        )

    return Answer(
        [
            sentence(
                "All changes together, test perplexity: {}. The LSTM with the same changes: {}; "
                "{}. How much of the distance from the lab's RNN to that LSTM the changes cover, "
                "in per cent of the nats a token: {}, where 100 is that LSTM itself. This share "
                "has a meaning only where that LSTM and the lab's RNN are told apart.",
                verdict((ALL, BASELINE), test[ALL], test[BASELINE]),
                verdict((LSTM, BASELINE), test[LSTM], test[BASELINE]),
                verdict((ALL, LSTM), test[ALL], test[LSTM]),
                shown(shares[ALL], ".0f"),
            ),
            sentence(
                "Without one of these, all together does not do as well: {}. Not shown to be "
                "needed while the others are there: {}. Changes can stand in for each other; what "
                "one does alone is in the next sentence.",
                *(linked(", ".join(names) or "none", runs) for names in (needed, spare)),
            ),
            sentence(
                "One change alone, compared with the lab's RNN: {}.", listed(CHANGES, BASELINE)
            ),
            sentence(
                "One change left out, compared with all together, which shows what the others do "
                "not replace: {}.",
                listed(removed, ALL),
            ),
            sentence(
                "All are scored as one stream with the state carried, also those that learned from "
                "windows and never carried one. The lab's RNN read in windows as it learned, "
                "compared with that stream: {}.",
                verdict(
                    ("in windows", "as a stream"),
                    measured(results[WINDOWED], READ_IN_WINDOWS),
                    test[BASELINE],
                ),
            ),
            sentence(
                "The lab has 512 units, windows of 100 words and batches of 32; it is made small "
                "here. All are given the first {} articles of the training text, {} tokens an "
                "epoch, and at most as many articles of the test text. A window has one "
                "target, the token after it; in sequence every token is one, so that a step of the "
                "recurrence gives {} times as many targets. Without the schedule, a training ends "
                "when two epochs have "
                f"not taken {GAIN:.0%} off the validation perplexity, or after 40.",
                LIMIT,
                number(first["tokens"] / first["epochs"], [results[BASELINE][0].run_id], ",.0f"),
                WINDOW,
            ),
        ],
        [
            plots.bars(
                "rnn_improvements",
                "Test perplexity of the RNN with one change, with all, and with all but one, and "
                "of the LSTM with all: a bar at the mean, a mark for each seed.",
                "change",
                "test perplexity",
                {label: test[label] for label in rows},
            ),
            study.table(
                "change",
                results,
                rows,
                [study.PERPLEXITY, study.EPOCHS],
                "Covered: the part of the distance from the lab's RNN to the LSTM with all "
                "changes, in nats a token, a mean over seeds; negative where the change "
                "moves away from that LSTM.",
                {
                    "covered (%)": lambda label: (
                        shown(shares[label], ".0f") if label in shares else ""
                    ),
                    "what it is": lambda label: EXPLAINED.get(label, ""),
                    f"compared with {BASELINE}": lambda label: (
                        compared(label, BASELINE) if label in (*CHANGES, ALL) else ""
                    ),
                    f"compared with {ALL}": lambda label: (
                        compared(label, ALL) if label in (*removed, LSTM) else ""
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
            "needed beside the others: {}; test perplexity: {}; {}.",
            linked(", ".join(needed) or "none", runs),
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
    then=in_windows,
    constants=("data.limit",),
)
