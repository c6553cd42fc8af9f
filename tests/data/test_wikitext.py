"""Wikipedia's markup to paragraphs: what is kept, what is left out, what it leaves behind."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.data.wikitext import FEWEST_WORDS, HOLE, ITEM, paragraphs

REST = "is a word of this sentence."


def only(wikitext: str) -> str:
    (line,) = paragraphs(wikitext)
    return line


def test_a_heading_follows_an_empty_line_and_comes_before_its_paragraphs():
    text = (
        "The first paragraph of this text.\n\n== History ==\nIt begins on one line\nand goes on "
        "here.\n\nA second paragraph of the section.\n=== Early years ===\nWhat came before all of "
        "the rest."
    )
    assert paragraphs(text) == [
        "The first paragraph of this text.",
        "",
        "History",
        "It begins on one line and goes on here.",
        "A second paragraph of the section.",
        "",
        "Early years",
        "What came before all of the rest.",
    ]


def test_sections_of_sources_and_links_are_left_out_with_all_below_them():
    text = (
        "Kept because it is the text.\n== References ==\nThese are the sources of the text.\n"
        "=== Books ===\nA book that everybody has to read.\n== Legacy ==\nWhat is left of it all "
        "today.\n== External links ==\nA page where there is more."
    )
    assert paragraphs(text) == [
        "Kept because it is the text.",
        "",
        "Legacy",
        "What is left of it all today.",
    ]


@pytest.mark.parametrize(
    "title",
    ["See also", "Notes and references", "Selected bibliography", "Further reading", "web links"],
)
def test_the_titles_of_such_sections_vary(title):
    assert paragraphs(f"== {title} ==\nThis is what is left out here.") == []


@pytest.mark.parametrize("title", ["Literature", "How it works", "Notes on the method of Gauss"])
def test_a_section_of_text_is_kept_whatever_words_its_title_has(title):
    assert paragraphs(f"== {title} ==\nThis is what is kept right here.")[1] == title


def test_a_heading_without_a_paragraph_is_left_out():
    assert paragraphs(
        "== Towns ==\n* London\n* Paris\n== Rivers ==\nThere are none in that land."
    ) == [
        "",
        "Rivers",
        "There are none in that land.",
    ]


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("''Italic'' and '''bold'''", "Italic and bold"),
        ("''Animal Farm'''s author", "Animal Farm's author"),
        ("[[Paris]] and [[Rome|the city]]", "Paris and the city"),
        ("[[:File:Map.svg|A map]]", "A map"),
        ("[http://a.org The site]", "The site"),
        ("Once<ref>Smith, p. 3.</ref> upon<ref name=a/>", "Once upon"),
        ("H<sub>2</sub>O<!-- water -->", "H2O"),
        ("Salt&nbsp;&amp; pepper", "Salt & pepper"),
        ("A {{convert|5|km|mi}} road", "A 5 kilometres road"),
        ("{{convert|3|to|5|ft}} high", "3 to 5 feet high"),
        ("{{As of|2014|lc=y}}, it", "as of 2014, it"),
        ("{{lang|la|Ab ovo}}", "Ab ovo"),
        ("{{chem|H|2|O}} and {{frac|3}} and {{frac|2|3}}", "H2O and 1/3 and 2/3"),
        ("That{{citation needed|date=May 2015}}", "That"),
        ("{{Infobox country|name=X\n|size=3}}\nIt", "It"),
        ("Alabama ({{IPAc-en|æ|l}}) here", "Alabama here"),
        ("Alabama ({{lang-ar|x}}; once Ala) here", "Alabama here"),
        ("Ice ( , or snow ; ) is", "Ice (or snow) is"),
        ("What , then . [[Category:Ice]]Then", "What, then. Then"),
        ("See http://a.org/b?c=d now", "See now"),
        ("[[File:a.jpg|thumb|left|A cat [[cat|in]] the sun]]It", "It"),
        ("{|\n! a\n|-\n| b || c\n|}\nIt", "It"),
        ("<gallery>\na.jpg|A cat\n</gallery>\nIt", "It"),
    ],
)
def test_markup_becomes_what_a_reader_sees(markup, shown):
    assert only(f"{markup} {REST}") == f"{shown} {REST}"


def test_quotations_are_paragraphs():
    quoted = "To be or not to be, that is the question."
    for markup in ("{{quote|%s}}", "{{quote|text=%s|sign=A}}", "<blockquote>%s</blockquote>"):
        text = f"Before it there is some text.\n{markup % quoted}\nAfter it there is some more."
        assert paragraphs(text) == [
            "Before it there is some text.",
            quoted,
            "After it there is some more.",
        ]


def test_items_of_lists_are_kept_only_if_they_are_sentences():
    text = (
        "* London, the capital of that country\n"
        "** This one is a whole sentence, though.\n"
        "; Mean : What all have in common on average.\n"
        ": ''Main article: [[Mean]]''\n"
    )
    assert paragraphs(text) == [
        "This one is a whole sentence, though.",
        "Mean: What all have in common on average.",
    ]


def test_a_paragraph_ends_before_a_formula_and_before_what_is_no_sentence():
    assert only("We know it as well as they. It is <math>x</math> where all is well.") == (
        "We know it as well as they."
    )
    assert only("There is a lot of them, you see. They are the following:\n* A\n* B") == (
        "There is a lot of them, you see."
    )


def test_short_lines_are_left_out():
    words = " ".join(["word"] * (FEWEST_WORDS - 2))
    assert paragraphs(f"{words} end.\n\nA {words} end.") == [f"A {words} end."]


MARKUP = ["{{", "}}", "[[", "]]", "{|", "|}", "|", "''", "'''", "==", "(", ")", "<!--", "-->"]
MARKUP += ["<ref>", "</ref>", "<math>", "</math>", "<br>", "&nbsp;"]
WORDS = ["\n", "\n*", "\n:", "==\n", "'s ", " a", "Wörter ", " sentence.", "File:", "http://a.b"]
WORDS += [
    "lang",
    "convert",
    "quote",
    "References",
    "A sentence of more than six words. ",
    ITEM,
    HOLE,
]
pieces = st.lists(st.sampled_from(MARKUP + WORDS), max_size=40)


@settings(deadline=None, max_examples=300)
@given(pieces=pieces)
def test_any_markup_gives_paragraphs_without_markup(pieces):
    lines = paragraphs("".join(pieces))
    for place, line in enumerate(lines):
        assert "\n" not in line
        assert not set(line) & {ITEM, HOLE}
        heading = place > 0 and lines[place - 1] == ""
        if line and not heading:
            assert not set(line) & set("{}|<>")
            assert line.rstrip("\"'\u201d\u2019)]")[-1] in ".!?…"
