"""Question 1 of the lab: why split text into tokens? The same text, in lower case, as words,
subwords and characters."""

from __future__ import annotations

from experiments import study
from experiments.study import Column, Question, Results, Study
from unroll.report import plots
from unroll.report.page import Answer, number, sentence, shown
from unroll.report.verdict import verdict

LOWER = "data.tokenizer.lower=true"
TOKENS = {
    "word": f"data/tokenizer=word {LOWER} data.vocabulary.min_frequency=2",
    "subword": f"{study.TOKENIZER} {LOWER}",
    "character": f"data/tokenizer=character {LOWER}",
}
LIMIT = 40 if study.FULL else 100
"""Articles. A text has three times as many characters as subwords, and each costs a step."""
BITS, COUNT, UNKNOWN = "test/bits_per_character", "test/tokens", "test/unknown_rate"


def answer(results: Results) -> Answer:
    bits = study.measures(results, TOKENS, BITS)
    word, character = results["word"], results["character"]
    steps = character[0].value(COUNT) / word[0].value(COUNT)
    unknown = number(100 * word[0].value(UNKNOWN), [word[0].run_id])
    coarse, fine = (
        verdict((a, b), bits[a], bits[b], form=".2f")
        for a, b in (("word", "subword"), ("subword", "character"))
    )
    return Answer(
        [
            sentence(
                "A model predicts one symbol at a time out of a list, so text has to be cut into "
                "symbols. Words give a list of {} entries and {}% unknown words in the test text; "
                "characters give a list of {} entries, {}% unknown, and a sequence {} times as "
                "long.",
                study.param(word, "data.vocabulary_size"),
                unknown,
                study.param(character, "data.vocabulary_size"),
                number(100 * character[0].value(UNKNOWN), [character[0].run_id]),
                number(steps, [word[0].run_id, character[0].run_id]),
            ),
            sentence(
                "Perplexities count different symbols here and must not be compared; bits per "
                "character may be: {}.",
                study.joined((coarse, fine)),
            ),
            sentence(
                "One advantage remains to a model with unknown tokens: it predicts only that a "
                "token is unknown, never its letters. The table gives the share of unknown tokens."
            ),
        ],
        [
            plots.bars(
                "tokens_bits",
                "Bits per character: a bar at the mean, a mark for each seed.",
                "token",
                {"bits per character on the test text": bits},
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
                    Column("bits per character", BITS, ".3f"),
                    study.PARAMETERS,
                ],
                f"An LSTM of {study.setting(word, 'model.hidden_size')} units, given the first "
                f"{LIMIT} articles of the training text. The perplexities are not comparable with "
                "each other.",
            ),
        ],
        found=sentence(
            "bits per character: {}; words: {}, but {}% of them are unknown and never spelled, so "
            "that they do not compare.",
            fine,
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
