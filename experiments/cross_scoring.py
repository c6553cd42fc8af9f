"""Questions 4, 5 and 7 of the lab, and what temperature does.

Every model reads what every model wrote, what people wrote, and the test split. A 3-gram, which has
no part in the comparison, reads all of them too: writers are compared by what the same reader
makes of them.
"""

from __future__ import annotations

from experiments import cells, study
from experiments.comparison import (
    DIVERSITY,
    GREEDY,
    MODES,
    NGRAM,
    PEOPLE,
    READ,
    READERS,
    TEMPERATURES,
    TEST,
    Matrix,
    compare,
)
from experiments.study import CELLS, SEEDS, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, Table, sentence, shown
from unroll.report.verdict import ranking, verdict

COOL, WARM = "0.5", "1.2"
HEAT = (f"temperature {COOL}", f"temperature {WARM}")
PLAIN, LAB = "1.0", "0.8"


def write_better(results: Results) -> Answer:
    matrix = Matrix(results[READ])
    test = {cell: matrix.perplexity(cell, TEST) for cell in CELLS}
    read = {cell: matrix.perplexity(NGRAM, cell, PLAIN) for cell in CELLS}
    cool, warm = (matrix.perplexity(NGRAM, "LSTM", mode) for mode in (COOL, WARM))
    columns = {
        **{f"text of the {cell}": (cell, PLAIN) for cell in CELLS},
        "text of people": (PEOPLE, None),
        "test split": (TEST, None),
    }
    return Answer(
        [
            sentence(
                "Two perplexities may be compared when text, tokens, vocabulary and protocol are "
                "the same; and over several seeds, since one pair of runs may differ by chance. On "
                "the test split: {}.",
                verdict(("RNN", "LSTM"), test["RNN"], test["LSTM"]),
            ),
            sentence(
                "No, not for that reason alone: it says how well a model predicts what people "
                "wrote. One and the same LSTM, with one test perplexity, writes differently at "
                "each temperature; a third reader, a Kneser-Ney 3-gram, finds this perplexity in "
                "its texts: {}.",
                verdict(HEAT, cool, warm, "neither"),
            ),
            sentence(
                "In texts drawn at temperature 1 the 3-gram finds this perplexity: {}; in what "
                "people wrote after the same beginnings, {}.",
                verdict(("RNN", "LSTM"), read["RNN"], read["LSTM"], "neither"),
                shown(matrix.perplexity(NGRAM, PEOPLE)),
            ),
        ],
        [
            plots.heat_map(
                "cross_scoring",
                "Perplexity of each reader on each writer's text, the mean over seeds.",
                "perplexity",
                ("reader", list(READERS)),
                ("writer", [*CELLS, "people", "test split"]),
                [
                    [matrix.perplexity(reader, *column).mean for column in columns.values()]
                    for reader in READERS
                ],
            ),
            Table(
                ["perplexity", *columns],
                [
                    [
                        f"{reader} reads",
                        *(shown(matrix.perplexity(reader, *column)) for column in columns.values()),
                    ]
                    for reader in READERS
                ],
                _caption("at temperature 1"),
            ),
            matrix.texts([*((writer, LAB) for writer in READERS), (PEOPLE, None)]),
        ],
        found=sentence(
            "test perplexity: {}; the perplexity that a 3-gram finds in their texts: {}.",
            verdict(("RNN", "LSTM"), test["RNN"], test["LSTM"]),
            verdict(("RNN", "LSTM"), read["RNN"], read["LSTM"], "neither"),
        ),
    )


def _caption(what: str) -> str:
    return (
        f"Texts drawn {what}, as long as what people wrote after the same beginnings; mean ± "
        f"standard deviation over {len(SEEDS)} seeds. Every text is "
        "read by itself (protocol document), the articles of the test split too, so that no state "
        "is carried into it: elsewhere on this page the split is read as one stream."
    )


def lower_is_better(results: Results) -> Answer:
    matrix = Matrix(results[READ])
    pair = ("greedy", "people")

    def compared(key: str, scale: float = 100) -> object:
        found = [matrix.diversity(key, mode, scale) for mode in (GREEDY, None)]
        return verdict(pair, found[0], found[1], "neither")

    rows = {"greedy": GREEDY, **{f"temperature {mode}": mode for mode in MODES[1:]}}
    return Answer(
        [
            sentence(
                "Perplexity of texts under the model that wrote them, and of what people wrote "
                "under the same models: {}.",
                verdict(pair, matrix.own(GREEDY), matrix.own(None), "neither"),
            ),
            sentence(
                "Sequences of four tokens that occurred before in the same text, in per cent: {}. "
                "Pairs of tokens that are distinct, in per cent: {}.",
                compared("repetition"),
                compared("distinct_2"),
            ),
            sentence(
                "No: the value alone does not decide. On held-out text of people it says how well "
                "a model predicts what people write; on a model's own text, how sure of itself "
                "the model is."
            ),
        ],
        [
            plots.scatter(
                "lower_is_better",
                "Sequences of four tokens that occurred before in the same text, in per cent: a "
                "point for each way of sampling, greedy and temperatures from 0.3 to 1.5.",
                "perplexity under the writer (log scale)",
                "repeated sequences (%)",
                {
                    label: [
                        (matrix.own(mode).mean, matrix.diversity("repetition", mode, 100).mean)
                        for mode in modes
                    ]
                    for label, modes in {"models": MODES, "people": (None,)}.items()
                },
                log_x=True,
                joined=True,
            ),
            Table(
                [
                    "text",
                    "perplexity",
                    *(f"{key.replace('_', '-')} (%)" for key in DIVERSITY),
                ],
                [
                    [
                        name,
                        shown(matrix.own(mode)),
                        *(shown(matrix.diversity(key, mode, 100)) for key in DIVERSITY),
                    ]
                    for name, mode in [*rows.items(), ("people", None)]
                ],
                "Repetition: share of sequences of four tokens that occurred before in the same "
                "text. distinct-n: share of sequences of n tokens that are distinct. Mean over the "
                "three cells.",
            ),
            matrix.texts([("LSTM", GREEDY), ("LSTM", PLAIN)]),
        ],
        found=sentence(
            "perplexity under the writer: {}; repeated sequences of four tokens, in per cent: {}.",
            verdict(pair, matrix.own(GREEDY), matrix.own(None), "neither"),
            compared("repetition"),
        ),
    )


def own_text(results: Results) -> Answer:
    matrix = Matrix(results[READ])
    own = {cell: matrix.perplexity(cell, cell, LAB) for cell in CELLS}
    test = {cell: matrix.perplexity(cell, TEST) for cell in CELLS}
    cool, warm = (matrix.perplexity("LSTM", "LSTM", mode) for mode in (COOL, WARM))
    return Answer(
        [
            sentence(
                "No: each is measured on another text, which its own model wrote. Each on its own "
                "text, drawn at the lab's temperature of {}: {}",
                LAB,
                ranking(own, "neither"),
            ),
            sentence("All three on the test split: {}", ranking(test)),
            sentence(
                "Temperature alone changes the figure of one and the same model. LSTM on its own "
                "text: {}.",
                verdict(HEAT, cool, warm, "neither"),
            ),
        ],
        [
            plots.grouped_bars(
                "own_text",
                "Perplexity on two kinds of text: a bar at the mean, a mark for each seed.",
                "cell",
                {
                    "perplexity": {
                        cell: {
                            f"its own text, temperature {LAB}": own[cell],
                            "the test split": test[cell],
                        }
                        for cell in CELLS
                    }
                },
            ),
            Table(
                [
                    "writer",
                    *(f"its text read by the {reader}" for reader in READERS),
                    "the test split read by it",
                ],
                [
                    [
                        cell,
                        *(shown(matrix.perplexity(reader, cell, LAB)) for reader in READERS),
                        shown(test[cell]),
                    ]
                    for cell in CELLS
                ],
                _caption(f"at temperature {LAB}"),
            ),
        ],
        found=sentence(
            "the LSTM on its own text: {}.",
            verdict(HEAT, cool, warm, "neither"),
        ),
    )


def temperature(results: Results) -> Answer:
    matrix = Matrix(results[READ])
    first, last = MODES[1], MODES[-1]
    pair = (f"temperature {first}", f"temperature {last}")
    pairs = [matrix.diversity("distinct_2", mode, 100) for mode in (first, last)]
    return Answer(
        [
            sentence(
                "Perplexity of texts under the model that wrote them: {}. What people wrote has {} "
                "under the same models.",
                verdict(pair, matrix.own(first), matrix.own(last), "neither"),
                shown(matrix.own(None)),
            ),
            sentence(
                "Distinct pairs of tokens, in per cent: {}; people: {}.",
                verdict(pair, pairs[0], pairs[1], "neither"),
                shown(matrix.diversity("distinct_2", None, 100)),
            ),
        ],
        [
            plots.lines(
                "sampling_temperature",
                "Perplexity under the writer against temperature.",
                "temperature",
                TEMPERATURES,
                "perplexity under the writer (log scale)",
                {
                    cell: [matrix.perplexity(cell, cell, mode) for mode in MODES[1:]]
                    for cell in CELLS
                },
                log_y=True,
                levels={"people": matrix.own(None).mean},
            ),
            plots.lines(
                "sampling_diversity",
                "Share of pairs of tokens that are distinct against temperature, over all cells.",
                "temperature",
                TEMPERATURES,
                "distinct pairs of tokens (%)",
                {"models": [matrix.diversity("distinct_2", mode, 100) for mode in MODES[1:]]},
                levels={"people": matrix.diversity("distinct_2", None, 100).mean},
            ),
            matrix.texts([("GRU", "0.3"), ("GRU", "0.8"), ("GRU", "1.5")]),
        ],
    )


STUDY = Study(
    "cross_scoring",
    (
        *cells.JOBS,
        *study.grid(f"{study.PROFILE} model=ngram model.order=3", {NGRAM: ""}, seeds=(1,)),
    ),
    (
        Question(
            "write_better",
            "Lower perplexity, better writer?",
            "If the RNN's perplexity is lower than the LSTM's, does it write better? When may the "
            "two perplexities be compared?",
            write_better,
            lab=4,
        ),
        Question(
            "lower_is_better",
            "Is lower always better?",
            "Is lower perplexity always better?",
            lower_is_better,
            lab=5,
        ),
        Question(
            "own_text",
            "Perplexity on one's own text",
            "May the three perplexities, each on its own generated text, be compared directly?",
            own_text,
            lab=7,
        ),
        Question(
            "sampling_temperature",
            "Temperature",
            "What does the temperature of sampling change?",
            temperature,
        ),
    ),
    then=compare,
    constants=("evaluation.protocol",),
)
