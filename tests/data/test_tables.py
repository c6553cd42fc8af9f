"""Files of every format: the same documents, and one line for a wrong file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile

import pytest
from files import documents, written
from hypothesis import given, settings
from hypothesis import strategies as st

from unroll.data.tables import csv_rows
from unroll.errors import Refused

DOCUMENTS = [
    "the quick brown fox",
    'she said "stop", twice; and went on',
    "na\u00efve caf\u00e9 \u5206\u5f00 \U0001f600",
    "one line \u2028 with a line separator\u0085 and a next line in it",
    "42 is a number, this is not",
]


# File formats


def as_csv(texts: list[str], column: str = "text") -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["label", column])
    writer.writerows([number, text] for number, text in enumerate(texts))
    return buffer.getvalue().encode()


def as_jsonl(texts: list[str], column: str = "text") -> bytes:
    lines = [json.dumps({"label": n, column: text}) for n, text in enumerate(texts)]
    return "".join(line + "\n" for line in lines).encode()


def as_parquet(texts: list[str], column: str = "text") -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"label": list(range(len(texts))), column: texts}), buffer)
    return buffer.getvalue()


def as_lines(texts: list[str]) -> bytes:
    return "".join(text + "\n" for text in texts).encode()


def as_zip(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("inside")
        archive.writestr("inside/first.txt", as_lines(texts[:2]))
        archive.writestr("inside/second.txt", as_lines(texts[2:]))
    return buffer.getvalue()


FORMATS = {
    "docs.txt": as_lines,
    "docs.txt.gz": lambda texts: gzip.compress(as_lines(texts)),
    "docs.zip": as_zip,
    "docs.csv": as_csv,
    "docs.jsonl": as_jsonl,
    "docs.parquet": as_parquet,
}
TABULAR = {name: FORMATS[name] for name in ("docs.csv", "docs.jsonl", "docs.parquet")}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_documents(text_files, tmp_path, name):
    path = written(tmp_path, name, FORMATS[name](DOCUMENTS))
    assert documents(text_files(path)) == {"train": DOCUMENTS}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "texts",
    [["NA", "a b"], ["null", "None", "nan"], ["007", "12"], ["1.0", "2"], ["2020-01-01"] * 2],
    ids=lambda texts: "-".join(texts),
)
def test_text_that_looks_like_a_value_of_another_type_stays_text(text_files, tmp_path, name, texts):
    path = written(tmp_path, name, FORMATS[name](texts))
    assert documents(text_files(path)) == {"train": texts}


@pytest.mark.parametrize("name", TABULAR)
def test_the_text_column_of_a_table_can_be_named(text_files, tmp_path, name):
    path = written(tmp_path, name, TABULAR[name](DOCUMENTS, column="body"))
    assert documents(text_files(path, text_column="body")) == {"train": DOCUMENTS}
    with pytest.raises(Refused, match=r"no column 'text'.*label, body.*data\.text_column"):
        text_files(path).read()


@pytest.mark.parametrize("name", TABULAR)
def test_rows_without_text_are_left_out_of_a_table(text_files, tmp_path, name):
    path = written(tmp_path, name, TABULAR[name](["a b", "", "  ", "c d"]))
    assert documents(text_files(path)) == {"train": ["a b", "c d"]}


def test_a_folder_may_mix_plain_text_and_tables(text_files, tmp_path):
    folder = tmp_path / "folder"
    written(folder, "a.csv", as_csv(["from a table"]))
    written(folder, "b.txt", "from plain text\n")
    assert sorted(documents(text_files(folder))["train"]) == ["from a table", "from plain text"]


# What cannot be read


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    place = len(content) // 3
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


LONG = [f"document {n} {n * n} {n**3 % 977}" for n in range(2000)]
UNREADABLE = {
    "empty.txt": b"",
    "blank.txt": b" \n\n\t\r\n ",
    "empty.txt.gz": b"",
    "blank.txt.gz": gzip.compress(b"\n"),
    "empty.zip": b"",
    "nothing.zip": b"PK\x05\x06" + bytes(18),
    "empty.csv": b"",
    "header.csv": b"text\n",
    "empty.jsonl": b"",
    "empty.parquet": b"",
    "not.txt.gz": b"this is no gz",
    "truncated.txt.gz": truncated(gzip.compress(as_lines(LONG))),
    "flipped.txt.gz": flipped(gzip.compress(as_lines(LONG))),
    "not.zip": b"this is no zip",
    "truncated.zip": truncated(as_zip(LONG)),
    "flipped.zip": flipped(as_zip(LONG)),
    "broken.jsonl": b'{"text": \n',
    "not.parquet": b"this is no parquet",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_empty_or_damaged_is_refused_in_one_line(text_files, tmp_path, name):
    path = written(tmp_path, name, UNREADABLE[name])
    with pytest.raises(Refused) as refused:
        text_files(path).read()
    line = str(refused.value)
    assert str(path) in line
    assert "\n" not in line
    assert len(line) > len(str(path)) + 10, "says what is wrong"


# Columns by position


def test_a_position_reads_a_csv_without_a_header(text_files, tmp_path):
    content = as_csv(DOCUMENTS).split(b"\r\n", 1)[1]
    path = written(tmp_path, "news.csv", content)
    assert documents(text_files(path, text_column=1)) == {"train": DOCUMENTS}
    labels = [str(number) for number in range(len(DOCUMENTS))]
    assert documents(text_files(path, text_column=0)) == {"train": labels}


def test_a_position_takes_every_row_as_text(text_files, tmp_path):
    path = written(tmp_path, "news.csv", "text\nfirst\n")
    assert documents(text_files(path, text_column=0)) == {"train": ["text", "first"]}


def test_a_name_made_of_digits_is_a_name(text_files, tmp_path):
    path = written(tmp_path, "a.csv", "1,0\nlabel,text\n")
    assert documents(text_files(path, text_column="0")) == {"train": ["text"]}
    assert documents(text_files(path, text_column=0)) == {"train": ["1", "label"]}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("data.text_column=0", 0),
        ("data.text_column='0'", "0"),
        ('data.text_column="0"', "0"),
        ("data.text_column=body", "body"),
        ("data.text_column=my column", "my column"),
    ],
)
def test_the_command_line_tells_a_position_from_a_name(composed, word, expected):
    found = composed("data=text_files", "data.path=x", word).data.text_column
    assert (found, type(found)) == (expected, type(expected))


def test_a_position_that_does_not_exist_is_refused_with_the_number_of_columns(
    text_files, composed, tmp_path
):
    path = written(tmp_path, "a.csv", "a,b,c\n")
    with pytest.raises(Refused, match=r"text_column=3: .*a\.csv has 3 columns.*from 0 to 2"):
        text_files(path, text_column=3).read()
    with pytest.raises(Refused, match=r"data\.text_column=-1 must be at least 0"):
        composed("data=text_files", "data.path=x", "data.text_column=-1")


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.parquet"])
def test_a_position_is_refused_for_files_whose_columns_have_names(text_files, tmp_path, name):
    path = written(tmp_path, name, TABULAR[name](DOCUMENTS))
    with pytest.raises(Refused, match=r"text_column=0 is a position.*without a header.*names"):
        text_files(path, text_column=0).read()


# Wrong tables


LARGE = "x" * 300_000
WRONG = {
    "no header.csv": (f"{LARGE},b\nc,d\n".encode(), "no column 'text'.*position, from 0"),
    "many columns.csv": (b",".join([b"column"] * 9000) + b"\n", "no column 'text'"),
    "unclosed.csv": (b'text\nfirst\n"second\nthird\n' + b"more\n" * 9, "starts on line 3"),
    "stray quote.csv": (b'text\nfirst\n"a" b\n', "starts on line 3"),
    "long row.csv": (b"text\nfirst\na, b\n", "line 3 has 2 column.*the first row has 1"),
    "short row.csv": (b"label,text\n1,first\n2\n", "line 3 has 1 column.*the first row has 2"),
    "latin-1.csv": ("text\ncaf\u00e9\n".encode("latin-1"), "offset 8 is not valid utf-8"),
    "utf-16.csv": ("text\nfirst\n".encode("utf-16"), "offset 0 is not valid utf-8"),
    "no mark.csv": ("text\nfirst\n".encode("utf-16-le"), "contains NUL"),
    "binary.csv": (bytes(range(128)) * 50, "contains NUL"),
    "latin-1.jsonl": ('{"text": "caf\u00e9"}\n'.encode("latin-1"), "line 1 is not valid JSON"),
    "utf-16.jsonl": ('{"text": "a"}\n{"text": "b"}\n'.encode("utf-16"), "not valid JSON"),
    "deep.jsonl": (b"[" * 100_000 + b"\n", "line 1 is not valid JSON"),
    "list.jsonl": (b'["text"]\n', "line 1 is not a JSON object"),
    "keys.jsonl": (json.dumps({LARGE: 1}).encode() + b"\n", "line 1 has no column 'text'"),
    "surrogate.jsonl": (b'{"text": "\\ud800"}\n', "surrogate"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_refused_in_one_bounded_line(text_files, tmp_path, name):
    content, expected = WRONG[name]
    path = written(tmp_path, name, content)
    with pytest.raises(Refused, match=expected) as refused:
        text_files(path).read()
    line = str(refused.value)
    assert str(path) in line
    assert line.isprintable()
    assert len(line) < len(str(path)) + 400


@pytest.mark.parametrize("kind", ["list", "struct", "bytes"])
def test_a_parquet_column_that_is_not_text_is_refused(text_files, tmp_path, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = {"list": [["a"]], "struct": [{"a": 1}], "bytes": [b"\xff"]}[kind]
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    with pytest.raises(Refused, match=r"a\.parquet cannot be read as Parquet"):
        text_files(tmp_path / "a.parquet").read()


def test_a_csv_field_may_be_as_large_as_a_book(text_files, tmp_path):
    path = written(tmp_path, "book.csv", f"text\n{LARGE}\n")
    assert documents(text_files(path)) == {"train": [LARGE]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_csv_is_decoded_as_the_encoding_says(text_files, tmp_path, encoding):
    path = written(tmp_path, "a.csv", "text\ncaf\u00e9\n".encode(encoding))
    assert documents(text_files(path, encoding=encoding)) == {"train": ["caf\u00e9"]}


def test_a_byte_order_mark_is_not_part_of_the_header(text_files, tmp_path):
    path = written(tmp_path, "a.csv", b"\xef\xbb\xbftext\nfirst\n")
    assert documents(text_files(path)) == {"train": ["first"]}


def test_a_blank_line_in_a_csv_is_no_row(text_files, tmp_path):
    path = written(tmp_path, "a.csv", "\nlabel,text\n\n1,first\n   \n2,second\n\n")
    assert documents(text_files(path)) == {"train": ["first", "second"]}


FIELDS = st.text(alphabet="ab ,\"\n\\'\ufeff\u2028\u5206", max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=6))
def test_rows_come_back_as_the_csv_module_writes_them(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    found = [tuple(row) for _, row in csv_rows(path, "utf-8")]
    assert found == [row for row in rows if "".join(row).strip()]
