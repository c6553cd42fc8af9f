"""Question 1 of the lab: why split text into tokens? The same text, in lower case, as words,
subwords and characters."""

from __future__ import annotations

from markupsafe import Markup

from experiments import study
from experiments.study import Column, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, number, sentence, shown
from unroll.report.verdict import best, chosen, verdict

LOWER = "data.tokenizer.lower=true"
TOKENS = {
    "word": f"data/tokenizer=word {LOWER} data.vocabulary.min_frequency=2",
    "subword": f"{study.TOKENIZER} {LOWER}",
    "character": f"data/tokenizer=character {LOWER}",
}
SPELLED = ("subword", "character")
"""Tokens that leave next to nothing of a text unknown."""
LIMIT = 40 if study.FULL else 100
"""Articles. A text has three times as many characters as subwords, and each costs a step."""
COUNT, UNKNOWN = "test/tokens", "test/unknown_rate"


def answer(results: Results) -> Answer:
    bits = study.measures(results, TOKENS, study.BITS.figure)
    word = results["word"]
    unknown = number(100 * word[0].value(UNKNOWN), [word[0].run_id])
    fine, finest = SPELLED
    compared = verdict(SPELLED, bits[fine], bits[finest], form=".2f")

    def entries(token: str) -> Markup:
        return study.param(results[token], "data.vocabulary_size")

    def times_as_long(token: str) -> Markup:
        run = results[token][0]
        return number(run.value(COUNT) / word[0].value(COUNT), [word[0].run_id, run.run_id])

    return Answer(
        [
            sentence(
                "A model predicts one symbol at a time out of a list, so text has to be cut into "
                "symbols. Words that occur at least twice in the training text give a list of {} "
                "entries and leave {}% of the test words unknown; "
                "subwords give {} entries and a sequence {} times as long, characters {} entries "
                "and {} times. Those two leave {}% and {}% of their tokens unknown.",
                entries("word"),
                unknown,
                *(found for token in SPELLED for found in (entries(token), times_as_long(token))),
                *(
                    number(100 * results[token][0].value(UNKNOWN), [results[token][0].run_id])
                    for token in SPELLED
                ),
            ),
            sentence(
                "Perplexities count different symbols here and must not be compared; bits per "
                "character may be, between tokens that spell the whole text: {}. Words do not: "
                "their {} bits leave out the letters of every unknown word, and what these would "
                "add was not measured.",
                compared,
                shown(bits["word"], ".2f"),
            ),
            sentence(
                "The choice by bits per character, out of those that spell the text: {}.",
                chosen(best({token: bits[token] for token in SPELLED}), bits),
            ),
        ],
        [
            plots.bars(
                "tokens_bits",
                "Bits per character: a bar at the mean, a mark for each seed.",
                "token",
                "bits per character on the test text",
                bits,
            ),
            study.table(
                "token",
                results,
                TOKENS,
                [
                    Column("vocabulary", "data.vocabulary_size", ",.0f"),
                    Column("test tokens", COUNT, ",.0f"),
                    Column("unknown (%)", UNKNOWN, scale=100),
                    study.PERPLEXITY,
                    study.BITS,
                    study.PARAMETERS,
                ],
                f"An LSTM of {study.setting(word, 'model.hidden_size')} units, given the first "
                f"{LIMIT} articles of the training text. All train for the same epochs, in pieces "
                f"of {study.setting(word, 'data.batching.length')} tokens, with the learning rate "
                "that was chosen with subwords. The perplexities are not comparable with each "
                "other.",
            ),
        ],
        found=sentence(
            "bits per character: {}; words: {}, but {}% of them are unknown and never spelled, so "
            "that they do not compare.",
            compared,
            shown(bits["word"], ".2f"),
            unknown,
        ),
    )


STUDY = Study(
    "tokens",
    study.grid(f"{study.CORPUS} {study.TUNED['LSTM']} data.limit={LIMIT}", TOKENS),
    (Question("tokens", "Why tokens?", "Why split text into tokens?", answer, lab=1),),
    constants=("data.limit",),
)
