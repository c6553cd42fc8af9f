"""Articles of a dump of Wikipedia, and of the one that the package gensim contains."""

from __future__ import annotations

import bz2
import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from files import documents

from unroll.app import main
from unroll.data.token_stream import encode
from unroll.data.wikipedia import FEWEST_WORDS, Wikipedia, pages
from unroll.errors import Refused
from unroll.registry import build

PAGE = """<page><title>{title}</title><ns>{ns}</ns>{redirect}
<revision><id>1</id><text xml:space="preserve">{text}</text></revision></page>"""
HEAD = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo/>'


def page(title: str, text: str, ns: int = 0, redirect: str = "") -> str:
    return PAGE.format(title=title, text=text, ns=ns, redirect=redirect)


def dump(folder: Path, *found: str) -> Path:
    path = folder / "dump.xml.bz2"
    path.write_bytes(bz2.compress(f"{HEAD}{''.join(found)}</mediawiki>".encode()))
    return path


def sentence(words: int) -> str:
    return " ".join(["word"] * (words - 1)) + " end."


@pytest.fixture
def wikipedia(composed, tmp_path, monkeypatch):
    """The corpus, of the dump of gensim or of the given one."""
    base = replace(composed("data=wikipedia").data, cache=str(tmp_path / "cache"))

    def wikipedia_(path: Path | None = None, **changes) -> Wikipedia:
        corpus = build("data", replace(base, **changes))
        if path is not None:
            monkeypatch.setattr(corpus, "files", lambda: {"train": [path]})
        return corpus

    return wikipedia_


# A dump made for the test


def test_pages_of_other_namespaces_and_redirects_are_no_articles(tmp_path):
    path = dump(
        tmp_path,
        page("Ice", "Frozen &amp; cold &lt;ref&gt;x&lt;/ref&gt;"),
        page("Talk:Ice", "Is it cold?", ns=1),
        page("Frozen water", "#REDIRECT [[Ice]]", redirect='<redirect title="Ice" />'),
        page("Snow", ""),
    )
    assert list(pages(path)) == [("Ice", "Frozen & cold <ref>x</ref>"), ("Snow", "")]


def test_a_document_is_a_title_and_its_paragraphs_with_an_empty_line_after_it(wikipedia, tmp_path):
    text = f"{sentence(150)}\n== Uses ==\n{sentence(150)}"
    path = dump(tmp_path, *[page(f"Ice {n}", text) for n in range(10)])
    assert documents(wikipedia(path))["test"] == [
        f"Ice 9\n\n{sentence(150)}\n\nUses\n{sentence(150)}\n\n"
    ]


def test_short_articles_are_left_out_and_every_tenth_of_the_others_is_held_out(wikipedia, tmp_path):
    found = []
    for number in range(23):
        found += [
            page(f"Short {number}", sentence(FEWEST_WORDS - 1)),
            page(f"Long {number}", sentence(FEWEST_WORDS)),
        ]
    read = documents(wikipedia(dump(tmp_path, *found)))
    titles = {split: [text.splitlines()[0] for text in texts] for split, texts in read.items()}
    assert titles["valid"] == ["Long 8", "Long 18"]
    assert titles["test"] == ["Long 9", "Long 19"]
    held = (8, 9, 18, 19)
    assert titles["train"] == [f"Long {number}" for number in range(23) if number not in held]


def test_held_out_articles_depend_on_no_seed_and_no_fraction(wikipedia, tmp_path):
    path = dump(tmp_path, *[page(f"Ice {n}", sentence(200)) for n in range(20)])
    first = documents(wikipedia(path))
    assert documents(wikipedia(path, split_seed=9, valid_fraction=0.5)) == first


# The dump of gensim


def test_the_text_of_gensims_dump_is_as_long_as_the_readme_says(wikipedia):
    corpus = wikipedia()
    encoded = encode(corpus.config, corpus)
    streams = encoded.streams
    assert {split: stream.documents for split, stream in streams.items()} == {
        "train": 77,
        "valid": 9,
        "test": 9,
    }
    assert sum(stream.characters for stream in streams.values()) == 2_701_482
    assert len(encoded.vocabulary) == 4004
    for stream in streams.values():
        assert not (stream.tokens == encoded.vocabulary.unknown).any()


LEFTOVER = re.compile(
    r"\[\[|\]\]|\{\{|\}\}|\||<|>|'''|https?:|www\.|\bthumb\||Category:|File:|&[a-z]+;|\(\)"
    r"|\( | \)|  | ,|\breflist\b|^\*|[\x00-\x09\x0b-\x1f]",
    re.MULTILINE,
)


def test_the_text_of_gensims_dump_has_nothing_left_of_its_markup(wikipedia):
    for split, texts in documents(wikipedia()).items():
        for text in texts:
            found = LEFTOVER.search(text)
            assert found is None, (split, text[max(0, found.start() - 50) : found.end() + 50])
            assert len(text.split()) >= FEWEST_WORDS


# Refusals


def test_a_damaged_dump_is_refused(wikipedia, monkeypatch):
    monkeypatch.setattr(Wikipedia, "SHA256", "0" * 64)
    with pytest.raises(Refused, match=r"bz2 is damaged.*a53f4648.*00000000.*pip install"):
        wikipedia().fingerprint()


def test_a_missing_dump_ends_the_command_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Wikipedia, "FILE", "absent.bz2")
    places = ["tracking=disabled", f"tracking.directory={tmp_path}", f"data.cache={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["unroll", "data=wikipedia", *places])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "absent.bz2 does not exist" in line


@pytest.mark.parametrize("name", ["wikipedia", "lee_news"])
def test_without_gensim_the_corpora_that_it_contains_are_refused(composed, monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    corpus = build("data", composed(f"data={name}").data)
    with pytest.raises(Refused, match=rf"data={name} reads.*pip install gensim"):
        corpus.files()
