"""Question 10 of the lab: if it must be the RNN, what in the code can be improved?

The lab's RNN at a quarter of its width, then one change at a time, then all together. Every
variant takes the same number of optimizer steps over batches of the same number of rows.
"""

from __future__ import annotations

from experiments import study
from experiments.study import TEST, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, sentence
from unroll.report.verdict import verdict

BASELINE = "the lab's RNN"
ALL = "all together"
STEPS = 150
LAB = (
    "experiment=lab/rnn data=lee_news data.vocabulary.min_frequency=2 model.hidden_size=128 "
    f"optimizer.learning_rate=1e-3 training.max_steps={STEPS} "
    f"training.validate_every={STEPS // 4} sampling.prefix_length=10 sampling.length=30"
)
CHANGES = {
    "clipping": "training.clip_norm=1.0",
    "dropout": "training.dropout=0.3",
    "carried state": "data/batching=sequential data.batching.length=35",
    "orthogonal": "model.initialization=orthogonal",
    "tied weights": "model.tie_weights=true",
    "schedule": "optimizer/schedule=cosine optimizer.schedule.warmup_steps=15",
}
EXPLAINED = {
    BASELINE: "windows of 100 words, each with the next word as its one target",
    "clipping": "gradient norm clipped at 1",
    "dropout": "dropout of 0.3 on embedding, between layers and on output",
    "carried state": "every word is a target; truncation at 35 steps with the state carried",
    "orthogonal": "recurrent matrices orthogonal at the start",
    "tied weights": "one matrix for embedding and softmax",
    "schedule": "warm-up over 15 steps, then half a cosine down",
    ALL: "all of these changes",
}


def answer(results: Results) -> Answer:
    test = study.measures(results, EXPLAINED, TEST)
    single = "carried state"
    return Answer(
        [
            sentence(
                "Test perplexity after {} steps. Reading in sequence with the state carried: {}. "
                "All changes together: {}; and {}. The table compares each change with the lab's "
                "RNN.",
                study.setting(results[ALL], "training.max_steps"),
                verdict((single, BASELINE), test[single], test[BASELINE]),
                verdict((ALL, BASELINE), test[ALL], test[BASELINE]),
                verdict((ALL, single), test[ALL], test[single]),
            ),
            sentence(
                "A window of 100 words has one target. In sequence every word is a target: a row "
                "of 35 words has 35."
            ),
        ],
        [
            plots.bars(
                "rnn_improvements",
                "Test perplexity after the same number of steps: a bar at the mean, a mark for "
                "each seed.",
                "change",
                {"test perplexity": test},
            ),
            study.table(
                "change",
                results,
                EXPLAINED,
                [study.PERPLEXITY],
                "",
                {
                    "what it is": lambda name: EXPLAINED[name],
                    f"compared with {BASELINE}": lambda name: (
                        ""
                        if name == BASELINE
                        else verdict((name, BASELINE), test[name], test[BASELINE]).short()
                    ),
                },
            ),
            study.drawn_curves(
                "rnn_improvements_curves",
                "Validation perplexity, a line for each seed.",
                results,
                [BASELINE, "carried state", ALL],
                {"validation perplexity (log scale)": "valid/perplexity"},
                ["validation perplexity (log scale)"],
            ),
        ],
    )


STUDY = Study(
    "rnn_improvements",
    study.grid(LAB, {BASELINE: "", **CHANGES, ALL: " ".join(CHANGES.values())}),
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
