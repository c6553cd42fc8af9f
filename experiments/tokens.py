"""Question 1 of the lab: why split text into tokens? The same text as words, pieces, characters."""

from __future__ import annotations

from experiments.cells import SEEDS
from experiments.study import Job, Results, Study
from unroll.report.figures import named, new, style
from unroll.report.page import Drawing, Section, Table, number, sentence, shown
from unroll.report.runs import Record, measured

TOKENS = {
    "word": (),
    "subword": ("data/tokenizer=subword", "data.tokenizer.size=2000"),
    "character": ("data/tokenizer=character",),
}
BITS = "test/bits_per_character"


def draw(results: Results) -> list[Section]:
    bits = {name: measured(results[name], BITS) for name in TOKENS}
    ranked = sorted(TOKENS, key=lambda name: bits[name].mean)
    word, character = results["word"][0], results["character"][0]
    answer = [
        sentence(
            "A model predicts one symbol at a time out of a list it knows, so text has to be cut "
            "into symbols, and the cut is a bargain. Words give a list of {} and leave {}% of the "
            "test words unknown; characters give a list of {}, leave {}% unknown, and make the "
            "same text {} times as many steps long.",
            _param(word, "data.vocabulary_size"),
            _unknown(word),
            _param(character, "data.vocabulary_size"),
            _unknown(character),
            number(_tokens(character) / _tokens(word), [character.run_id, word.run_id]),
        ),
        sentence(
            "Bits per character compare what perplexities cannot, for those count different "
            "symbols: {} with {}, {} with {}, {} with {}. The word model is let off the letters "
            "of every unknown word, which is most of its lead.",
            *(part for name in ranked for part in (name, shown(bits[name], ".2f"))),
        ),
    ]
    return [
        Section(
            "tokens",
            "Why tokens?",
            "Why split text into tokens?",
            answer,
            [_bars(results), _table(results)],
            lab=1,
        )
    ]


def _tokens(record: Record) -> float:
    return record.metric("test/tokens")


def _param(record: Record, key: str) -> object:
    return number(float(record.params[key]), [record.run_id], ",.0f")


def _unknown(record: Record) -> object:
    return number(100 * record.metric("test/unknown_rate"), [record.run_id])


def _bars(results: Results) -> Drawing:
    figure, axes = new(height=2.6)
    for position, name in enumerate(TOKENS):
        measure = measured(results[name], BITS)
        colour = style(position)["color"]
        axes.barh(position, measure.mean, xerr=measure.spread, color=colour, height=0.6, capsize=3)
        axes.text(measure.mean + measure.spread, position, f"  {measure.mean:.2f}", va="center")
    axes.set_yticks(range(len(TOKENS)), list(TOKENS))
    named(axes, "bits per character on the test text (lower is better)", "token")
    axes.margins(x=0.12)
    return Drawing("tokens_bits", "Bits per character; lines: spread over seeds.", figure)


def _table(results: Results) -> Table:
    rows = []
    for name in TOKENS:
        records = results[name]
        rows.append(
            [
                name,
                _param(records[0], "data.vocabulary_size"),
                number(_tokens(records[0]), [records[0].run_id], ",.0f"),
                _unknown(records[0]),
                shown(measured(records, "test/perplexity")),
                shown(measured(records, BITS), ".3f"),
                _param(records[0], "model.parameters"),
            ]
        )
    head = [
        "token",
        "vocabulary",
        "test tokens",
        "unknown (%)",
        "test perplexity",
        "bits a character",
        "parameters",
    ]
    return Table(
        head,
        rows,
        f"An LSTM of 128 units, four epochs each, {len(SEEDS)} seeds. The perplexities "
        "are not comparable with each other.",
    )


STUDY = Study(
    "tokens",
    tuple(
        Job(name, ("experiment=study", "model=lstm", *words, f"seed={seed}"))
        for name, words in TOKENS.items()
        for seed in SEEDS
    ),
    draw,
)
