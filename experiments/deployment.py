"""Question 9 of the lab: on a phone, which of the three would one deploy?

Size on disk, resident memory and milliseconds a token on one thread, in float32 and with weights of
eight bits, and what eight bits do to perplexity. What is timed runs alone.
"""

from __future__ import annotations

from experiments import cells, study
from experiments.study import CELLS, Job, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Table, sentence, shown
from unroll.report.runs import Measured, measured
from unroll.report.verdict import best, chosen, ranking, verdict

PRECISIONS = ("float32", "int8")
TOKENS = 20000
SCORED = ("task=deploy", f"task.tokens={TOKENS}")
FIGURES = {
    "MB on disk": ("bytes", 1e-6, ".2f"),
    "MB resident": ("model_bytes", 1e-6, ".1f"),
    "ms a token": ("milliseconds_per_token", 1.0, ".3f"),
    "test perplexity": ("perplexity", 1.0, ".1f"),
}


def label(cell: str) -> str:
    return f"deploy {cell}"


def deploy(results: Results) -> tuple[Job, ...]:
    return tuple(
        Job(label(cell), (*SCORED, f"run={record.run_id}"), alone=True)
        for cell in CELLS
        for record in results[cell]
    )


def figure_of(results: Results, cell: str, precision: str, head: str) -> Measured:
    key, scale, _ = FIGURES[head]
    return measured(results[label(cell)], f"{precision}/{key}", scale)


def answer(results: Results) -> Answer:
    def of(head: str, precision: str = "int8") -> dict[str, Measured]:
        return {cell: figure_of(results, cell, precision, head) for cell in CELLS}

    small, large = of("MB on disk"), of("MB on disk", "float32")
    times, quality = of("ms a token"), of("test perplexity")
    left = list(CELLS)
    for figures in (quality, times, small):
        left = best({cell: figures[cell] for cell in left})
    choice = chosen(left, quality)
    return Answer(
        [
            sentence(
                "Choose in eight bits, out of those whose size and time the phone can afford, by "
                "test perplexity; out of those that this does not tell from the first, by "
                "milliseconds a token, then by size. Where the phone can afford all three, that "
                "is: {}.",
                choice,
            ),
            sentence(
                "By test perplexity in eight bits, of at most {} tokens of the test text: {}",
                TOKENS,
                ranking(quality),
            ),
            sentence(
                "By milliseconds a token in eight bits, on this machine's processor, since no "
                "phone was at hand: {}",
                ranking(times, form=".3f"),
            ),
            sentence(
                "On disk in eight bits: {} MB; in float32: {} MB.",
                study.listed(small, ".2f"),
                study.listed(large, ".2f"),
            ),
            sentence(
                "What eight bits change, compared with float32. Milliseconds a token: {}. Test "
                "perplexity: {}.",
                *(
                    study.joined(
                        verdict(
                            (f"{cell} in eight bits", "float32"),
                            of(head)[cell],
                            of(head, "float32")[cell],
                            form=form,
                        )
                        for cell in CELLS
                    )
                    for head, form in (("ms a token", ".3f"), ("test perplexity", ".2f"))
                ),
            ),
        ],
        [
            plots.grouped_bars(
                "deployment",
                "Size and time of a token in float32 and in eight bits, a mark for each run.",
                "cell",
                {
                    head: {
                        cell: {each: figure_of(results, cell, each, head) for each in PRECISIONS}
                        for cell in CELLS
                    }
                    for head in ("MB on disk", "ms a token")
                },
            ),
            Table(
                ["model", *FIGURES],
                [
                    [
                        f"{cell}, {precision}",
                        *(
                            shown(figure_of(results, cell, precision, head), form)
                            for head, (_, _, form) in FIGURES.items()
                        ),
                    ]
                    for cell in CELLS
                    for precision in PRECISIONS
                ],
                "Resident: memory of a new process after it wrote, minus its memory before it "
                "loaded the model, when it had run one of the kind with almost no weights. One "
                "token at a time, one thread, one job at a time: a run's time is the median over "
                "its tokens. Mean ± standard deviation over runs.",
            ),
        ],
        found=sentence(
            "{}; in eight bits, test perplexity: {} Milliseconds a token: {}",
            choice,
            ranking(quality),
            ranking(times, form=".3f"),
        ),
    )


STUDY = Study(
    "deployment",
    cells.JOBS,
    (
        Question(
            "deployment",
            "On a phone",
            "Which of the three would you deploy on a phone?",
            answer,
            lab=9,
        ),
    ),
    then=deploy,
)
