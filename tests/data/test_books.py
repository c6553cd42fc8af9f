"""The Time Machine and the lyrics: read, cleaned and cut as their documents publish."""

import hashlib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from unroll.app import compose
from unroll.data import books
from unroll.data.books import download
from unroll.data.token_stream import encode
from unroll.errors import Refused
from unroll.registry import build

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
BOOK = SHARED / "timemachine.txt"
LYRICS = SHARED / "jaychou_lyrics.txt.zip"


def documents(cache: Path, *words: str) -> list[str]:
    config = compose([*words, f"data.cache={cache}"]).data
    return list(build("data", config).read()["train"]["text"])


def test_letters_only_leaves_lower_case_words_and_single_spaces(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The Time-Machine, 1895\n\n  by H. G. Wells [é]\n***\n", encoding="utf-8")
    words = ("data=time_machine", f"data.path={book}")
    assert documents(tmp_path, *words) == ["the time machine", "by h g wells"]
    lines = documents(tmp_path, *words, "data.cleaning=lines")
    assert lines == ["the time-machine, 1895", "by h. g. wells [é]", "***"]


@pytest.mark.parametrize("characters", [1, 3, 16, 17, 20, 1000])
def test_the_first_characters_are_counted_after_cleaning(tmp_path: Path, characters: int) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The Time-Machine\nby H. G. Wells\n", encoding="utf-8")
    words = ("data=time_machine", f"data.path={book}", f"data.characters={characters}")
    whole = "the time machine" + "by h g wells"
    assert "".join(documents(tmp_path, *words)) == whole[:characters]


def test_lyrics_are_one_text_with_newlines_as_spaces(tmp_path: Path) -> None:
    packed = tmp_path / "songs.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("songs.txt", "想要有直升机\r\n想要和你\n")
    assert documents(tmp_path, "data=lyrics", f"data.path={packed}") == ["想要有直升机 想要和你"]


def test_an_archive_whose_paths_leave_it_is_not_read(tmp_path: Path) -> None:
    packed = tmp_path / "songs.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../songs.txt", "text")
    with pytest.raises(Refused, match="leaves the archive"):
        documents(tmp_path, "data=lyrics", f"data.path={packed}")


def test_a_download_is_kept_only_if_it_is_the_file_that_was_meant(tmp_path: Path) -> None:
    source, place = tmp_path / "source.txt", tmp_path / "downloads" / "kept.txt"
    source.write_text("the book", encoding="utf-8")
    with pytest.raises(Refused, match="SHA-1"):
        download(source.as_uri(), "0" * 40, place)
    assert not place.exists()
    download(source.as_uri(), hashlib.sha1(b"the book").hexdigest(), place)
    assert place.read_text(encoding="utf-8") == "the book"
    with pytest.raises(Refused, match=r"data\.path="):
        download((tmp_path / "missing").as_uri(), "0" * 40, place)


def test_a_download_is_no_larger_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, place = tmp_path / "source.txt", tmp_path / "kept.txt"
    source.write_text("the book", encoding="utf-8")
    monkeypatch.setattr(books, "LARGEST", 7)
    with pytest.raises(Refused, match="more than 7 bytes"):
        download(source.as_uri(), hashlib.sha1(b"the book").hexdigest(), place)
    assert not place.exists()


@pytest.mark.skipif(not BOOK.exists(), reason="The Time Machine is not at hand")
def test_the_ten_most_frequent_words_of_the_time_machine_have_the_published_counts(
    tmp_path: Path,
) -> None:
    found: Counter[str] = Counter()
    for line in documents(tmp_path, "data=time_machine", f"data.path={BOOK}"):
        found.update(line.split())
    counts = {"the": 2261, "i": 1267, "and": 1245, "of": 1155, "a": 816}
    counts |= {"to": 695, "was": 552, "in": 541, "that": 443, "my": 440}
    assert found.most_common(10) == list(counts.items())


@pytest.mark.skipif(not LYRICS.exists(), reason="the lyrics are not at hand")
def test_the_lyrics_are_cut_as_the_document_cuts_them(tmp_path: Path) -> None:
    config = compose(
        ["experiment=lyrics/random", f"data.path={LYRICS}", f"data.cache={tmp_path}"]
    ).data
    encoded = encode(config, build("data", config))
    with zipfile.ZipFile(LYRICS) as archive:
        text = archive.read("jaychou_lyrics.txt").decode()
    cut = text.replace("\n", " ").replace("\r", " ")[:10_000]
    # the document counts 1,027 distinct characters; the copy at hand is another one and has 1,038
    assert len(encoded.vocabulary) - 4 == len(set(cut))
    ids = encoded.streams["train"].tokens.tolist()
    assert encoded.tokenizer.join(encoded.vocabulary.decode(ids)) == cut
