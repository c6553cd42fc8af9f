"""The markup of Wikipedia to plain text: a heading or a paragraph on each line.

mwparserfromhell gives the tree of a page. A node is written as text, or left out; then lines are
joined to paragraphs as MediaWiki does it, and what is no sentence is left out: cells of tables,
entries of lists, captions, and the rest of a paragraph from a hole on: a formula, say, or a sound
that a template writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Template, Text
from mwparserfromhell.nodes import Wikilink as Link
from mwparserfromhell.wikicode import Wikicode

ITEM, HOLE = "\x01", "\x02"
"""In text that is not cleaned yet: the start of an item of a list; what shows, but is no text."""

SOURCES = re.compile(
    r"see also|works cited|(list of|selected) works|(external|web) ?links|(references and )?"
    r"further reading|([a-z]+ )?(references|notes|footnotes|citations|sources|bibliography"
    r"|publications|filmography|discography)( and [a-z ]+)?",
    re.IGNORECASE,
)
"""Headings of sections that list works, links and the like."""
ASIDE = re.compile(
    r"\s*:?(file|image|category|media|special|template|[a-z-]+)\s*:\S", re.IGNORECASE
)
"""Titles of links to files, categories and other wikis, which show no text in the article."""
LEFT_OUT = {
    "ref", "references", "table", "gallery", "timeline", "imagemap", "score", "source",
    "syntaxhighlight", "code", "pre",
}  # fmt: skip

UNITS = {
    "mi": "miles", "km": "kilometres", "ft": "feet", "m": "metres", "in": "inches",
    "cm": "centimetres", "mm": "millimetres", "yd": "yards", "sqmi": "square miles",
    "km2": "square kilometres", "acre": "acres", "ha": "hectares", "lb": "pounds",
    "kg": "kilograms", "t": "tonnes", "C": "°C", "F": "°F", "nmi": "nautical miles",
    "mph": "miles per hour", "km/h": "kilometres per hour", "cuft": "cubic feet",
}  # fmt: skip
QUANTITY = re.compile(r"[-+\u2212]?[\d.,]+|to|and|or|by|[-\u2013x±]|\+/-")


def _arguments(template: Template) -> list[str]:
    """The values of a template that have no name, as text."""
    return [_text(value.value).strip() for value in template.params if not value.showkey]


def _argument(position: int) -> Callable[[Template], str]:
    def taken(template: Template) -> str:
        values = _arguments(template)
        return values[position] if -len(values) <= position < len(values) else ""

    return taken


def _quotation(template: Template) -> str:
    for name in ("text", "quote", "1"):
        if template.has(name):
            return f"\n\n{_text(template.get(name).value).strip()}\n\n"
    return ""


def _measured(template: Template) -> str:
    """``{{convert|3|to|5|mi|km}}``: the quantities before the first unit, and the unit."""
    words: list[str] = []
    for value in _arguments(template):
        if not QUANTITY.fullmatch(value):
            return " ".join([*words, UNITS.get(value, value)])
        words.append(value)
    return " ".join(words)


def _as_of(template: Template) -> str:
    return f"{'as' if template.has('lc') else 'As'} of {' '.join(_arguments(template)[:1])}"


def _fraction(template: Template) -> str:
    return "/".join(["1", *_arguments(template)][-2:])


def _always(text: str) -> Callable[[Template], str]:
    return lambda template: text


TEMPLATES: dict[str, Callable[[Template], str]] = {
    **dict.fromkeys(("convert", "cvt"), _measured),
    **dict.fromkeys(("quote", "blockquote", "cquote", "quotation"), _quotation),
    **dict.fromkeys(
        ("nowrap", "nobr", "smaller", "small", "big", "angbr", "vr", "sc", "smallcaps", "vanchor",
         "nihongo", "abbr", "sub", "sup", "val", "railgauge", "visible anchor"),
        _argument(0),
    ),
    **dict.fromkeys(("lang", "script"), _argument(1)),
    **dict.fromkeys(("transl", "unicode"), _argument(-1)),
    **dict.fromkeys(("nbsp", "space", "thinsp", "spaces"), _always(" ")),
    **dict.fromkeys(("snd", "spaced ndash", "spnd"), _always(" \u2013 ")),
    **dict.fromkeys(("mdash", "mdashb", "em dash"), _always("\u2014")),
    **dict.fromkeys(("circa", "c."), lambda template: f"c. {_argument(0)(template)}"),
    "'s": _always("'s"),
    "ndash": _always("\u2013"),
    "as of": _as_of,
    "frac": _fraction,
    "chem": lambda template: "".join(_arguments(template)),
    "hms": lambda template: f"HMS {_argument(0)(template)}",
}  # fmt: skip
"""The templates that show text within sentences. Others are boxes, notes and navigation, or:"""
HOLES = ("ipa", "respell", "inflation", "lang-", "math", "mvar", "music", "nuclide", "currentyear")
"""How the names of those begin that show what is not written in the page, or is not text."""


def paragraphs(wikitext: str) -> list[str]:
    """The lines of an article: each a paragraph, or a heading, which an empty line precedes. A
    section without a paragraph, or of sources and links, is left out with its heading."""
    lines: list[str] = []
    hidden: int | None = None  # the level of the heading whose sections are left out
    for heading, text in _sections(mwparserfromhell.parse(wikitext, skip_style_tags=True)):
        title = ""
        if heading is not None:
            title = _cleaned(_text(heading.title)).replace(HOLE, "")
            if hidden is None or heading.level <= hidden:
                hidden = heading.level if SOURCES.fullmatch(title) else None
        found = _paragraphs(text) if hidden is None else []
        if found:
            lines += ["", title, *found] if title else found
    return lines


def _sections(code: Wikicode) -> Iterator[tuple[Heading | None, str]]:
    """Each heading with the text up to the next one, not cleaned yet; first what has none."""
    heading: Heading | None = None
    shown: list[str] = []
    for node in code.nodes:
        if isinstance(node, Heading):
            yield heading, "".join(shown)
            heading, shown = node, []
        else:
            shown.append(_shown(node))
    yield heading, "".join(shown)


def _text(code: Wikicode) -> str:
    return "".join(map(_shown, code.nodes))


def _shown(node: Node) -> str:
    """A node as text that is not cleaned yet; nothing for comments and what is left out."""
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Template):
        name = str(node.name).strip().lower().replace("_", " ")
        shown = TEMPLATES.get(name, _always(HOLE if name.startswith(HOLES) else ""))
        return shown(node)
    if isinstance(node, Link):
        if ASIDE.match(str(node.title)) and node.title.strip()[:1] != ":":
            return ""
        return str(node.title).strip(" :") if node.text is None else _text(node.text)
    if isinstance(node, ExternalLink):
        return _text(node.title) if node.brackets and node.title is not None else ""
    if isinstance(node, HTMLEntity):
        return str(node.normalize())
    return _tagged(node) if isinstance(node, Tag) else ""


def _tagged(tag: Tag) -> str:
    name = str(tag.tag).strip().lower()
    if name in ("li", "dd", "dt"):
        return ITEM
    if name == "math":
        return HOLE
    if name in LEFT_OUT or tag.contents is None:
        return " " if name == "br" else ""
    inner = _text(tag.contents)
    return f"\n\n{inner}\n\n" if name in ("blockquote", "div", "center", "p") else inner


def _paragraphs(text: str) -> list[str]:
    """The paragraphs of a section: lines that only one newline separates belong together. An item
    of a list has to be a sentence; the end of a paragraph that is none is cut off."""
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        if not line.strip() or line.startswith(ITEM):
            blocks.append([])
        blocks[-1].append(line)
        if line.startswith(ITEM):
            blocks.append([])
    found = []
    for lines in blocks:
        line = _cleaned(" ".join(lines))
        sentences = SENTENCES.match(line)
        if sentences is None or (lines[0].startswith(ITEM) and sentences.end() < len(line)):
            continue
        if len(sentences[0].split()) >= FEWEST_WORDS:
            found.append(sentences[0])
    return found


SENTENCES = re.compile(r"[^|{}<>\\\x02]*[.!?…][\"'\u201d\u2019)\]]*(?= |$)")
"""Text up to its last end of a sentence, before a hole or what is left over from markup."""
FEWEST_WORDS = 6
"""Words of a paragraph."""


RULES = [
    (re.compile(rf"\s*{ITEM}\s*"), ": "),  # of a list of definitions: term and definition
    (re.compile(r"'''(?=s\b)"), "'"),  # ''Animal Farm'''s
    (re.compile(r"'{2,}"), ""),  # italic and bold
    (re.compile(r"__[A-Z]+__"), ""),
    (re.compile(r"(https?|ftp)://\S+|www\.\S+"), ""),
    (re.compile(r"\s*\([^()]*\x02[^()]*\)"), ""),  # (/pronunciation/)
    (re.compile(r"[\u00ad\u200b-\u200f\u2060\ufeff]"), ""),
    (re.compile(r"\s+"), " "),
    (re.compile(r"\(\s*([,;:/]\s*)+"), "("),  # what a template left that shows nothing
    (re.compile(r"(\s*[,;:/])+\s*\)"), ")"),
    (re.compile(r"\s*\(\s*\)|\s*\[\s*\]"), ""),
    (re.compile(r"([,;:])(\s*[,;])+"), r"\1"),
    (re.compile(r"\s+([,;:.!?)])"), r"\1"),
    (re.compile(r"\(\s+"), "("),
    (re.compile(r"(?<![.])[.][.](?![.])"), "."),
]


def _cleaned(text: str) -> str:
    """One line of text, without what markup leaves behind."""
    text = unescape(text).lstrip(f" {ITEM}")
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return text.strip(" *#:;")
