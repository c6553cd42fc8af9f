"""Question 3 of the lab: what changes if the training set is not shuffled?

Windows, each with the next token as its one target, shuffled and in the order of the text; and,
where every token is a target, random subsequences beside sequential columns: there the order is
what allows the state to be carried.
"""

from __future__ import annotations

from markupsafe import Markup

from experiments import cells, study
from experiments.study import TEST, Column, Question, Results, Study
from unroll.report.page import Answer, sentence
from unroll.report.verdict import verdict

VALID = "valid/perplexity"
LIMIT, LENGTH, EPOCHS = (2, 50, 4) if study.FULL else (40, 10, 6)
WINDOW = (
    f"data/batching=windows data.batching.length={LENGTH} data.batching.batch_size=64 "
    f"data.limit={LIMIT} training.epochs={EPOCHS}"
)
"""A window costs as many steps as it has tokens, and has one target, so a part of the text has to
do."""
LSTM = f"{cells.BASE} {study.TUNED['LSTM']}"
WINDOWS = {
    "shuffled windows": "data.batching.shuffle=true",
    "windows in order": "data.batching.shuffle=false",
}
STREAMS = {"random subsequences": "data/batching=random", "sequential columns": ""}


def answer(results: Results) -> Answer:
    test, valid = (study.measures(results, results, key) for key in (TEST, VALID))
    mixed, ordered = WINDOWS
    fresh, carried = STREAMS

    def compared(a: str, b: str) -> Markup:
        return Markup("{}; on the validation split, {}").format(
            verdict((a, b), test[a], test[b]), verdict((a, b), valid[a], valid[b])
        )

    return Answer(
        [
            sentence(
                "Neighbouring windows share all but one of their tokens, so an unshuffled batch is "
                "one short stretch of text, read from {} neighbouring beginnings. Both are an LSTM "
                "that is given the first {} articles of the training text and of the test text, "
                "and that is scored as one stream. Test perplexity: {}. Only where both splits "
                "tell the two apart is it shown that the order matters.",
                study.setting(results[mixed], "data.batching.batch_size"),
                LIMIT,
                compared(ordered, mixed),
            ),
            sentence(
                "Where every token of a stream is a target, keeping the order lets the state be "
                "carried from batch to batch. Test perplexity: {}.",
                compared(carried, fresh),
            ),
        ],
        [
            study.drawn_curves(
                "shuffling_loss",
                "Loss on windows of "
                f"{study.setting(results[mixed], 'data.batching.length')} tokens from {LIMIT} "
                "articles, shuffled and in order, a line for each seed.",
                results,
                WINDOWS,
                study.LOSSES,
            ),
            study.table(
                "batches",
                results,
                results,
                [
                    study.EPOCHS,
                    Column("rows", "data.batching.batch_size", ".0f"),
                    study.PERPLEXITY,
                    Column("validation perplexity", VALID),
                ],
                "Windows and streams are of other parts of the text, so compare within a pair.",
            ),
        ],
        found=sentence(
            "test perplexity: {}. As streams: {}.",
            compared(ordered, mixed),
            verdict((carried, fresh), test[carried], test[fresh]),
        ),
    )


STUDY = Study(
    "shuffling",
    (
        *study.grid(f"{LSTM} {WINDOW}", WINDOWS),
        *study.grid(LSTM, STREAMS),
    ),
    (
        Question(
            "shuffling",
            "Without shuffling",
            "What changes if the training set is not shuffled?",
            answer,
            lab=3,
        ),
    ),
    constants=("data.limit",),
)
