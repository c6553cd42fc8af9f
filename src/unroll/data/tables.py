"""CSV, JSONL and Parquet files: the texts in one of their columns, as they stream by.

Only Parquet has types: CSV and JSONL are read as text, so that `007` and `NA` stay unchanged.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator

from unroll.data.text_reader import File, Reader, opened
from unroll.errors import QUOTED, Refused, bounded, first_line, require

LARGEST_FIELD = 2**31 - 1
"""Characters of a CSV field; the csv module's own limit, 131,072, is less than a book."""
NAME_THE_COLUMN = "set data.text_column to the column that holds the text"

Column = str | int
"""The name of a column, or its position, from 0, in a CSV file without a header."""


def column_texts(path: File, column: Column, encoding: str) -> Iterator[str]:
    """The texts of one column of a table, without the empty ones.

    Raises:
        Refused: the file is damaged, or has no such column.
    """
    for text in TABLES[path.suffix](path, column, encoding):
        if text is not None and text.strip():
            yield text


def csv_texts(path: File, column: Column, encoding: str) -> Iterator[str]:
    """The cells of one column of a CSV file. A column given by name needs a header row; a column
    given by position means that the file has none."""
    rows = csv_rows(path, encoding)
    position = _named(rows, column, path) if isinstance(column, str) else column
    for _, row in rows:
        require(
            position < len(row),
            f"data.text_column={position}: {path} has {len(row)} columns, so a position must be "
            f"from 0 to {len(row) - 1}",
        )
        yield row[position]


def _named(rows: Iterator[tuple[int, list[str]]], column: str, path: File) -> int:
    """The position of a column in the header, which is the first of ``rows``."""
    for _, header in rows:
        remedy = f"{NAME_THE_COLUMN}, or if the file has no header, to its position, from 0"
        require_column(column, header, str(path), remedy)
        return header.index(column)
    return 0


def csv_rows(path: File, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, each with the number of its first line. Blank rows are skipped.

    Raises:
        Refused: a quoted field is not closed or goes on after its closing quote, a row has more
            or fewer columns than the first, or a byte is not of the encoding.
    """
    csv.field_size_limit(LARGEST_FIELD)
    reader = csv.reader(Reader("line", encoding).lines(path), strict=True)
    columns = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise Refused(
                f"{path}: the row that starts on line {line} is not valid CSV "
                f"({first_line(error, QUOTED)}): close its quotes, and write a quote inside them "
                "twice"
            ) from error
        if row is None:
            return
        if not any(cell.strip() for cell in row):
            continue
        columns = columns or len(row)
        require(
            len(row) == columns,
            f"{path}: line {line} has {len(row)} column(s), the first row has {columns}: put "
            "texts that contain a comma in double quotes",
        )
        yield line, row


def json_texts(path: File, column: Column, encoding: str) -> Iterator[str | None]:
    """The values under one key of JSON objects, one object per line, always in UTF-8."""
    name = _require_name(column, path)
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}: line {number}"
            try:
                row = json.loads(line) if line.strip() else {name: None}
            except (ValueError, RecursionError) as error:
                raise Refused(f"{where} is not valid JSON: {first_line(error, QUOTED)}") from error
            require(isinstance(row, dict), f"{where} is not a JSON object")
            require_column(name, list(row), where, NAME_THE_COLUMN)
            yield None if row[name] is None else str(row[name])


def parquet_texts(
    path: File, column: Column, encoding: str, remedy: str = NAME_THE_COLUMN
) -> Iterator[str | None]:
    """The values of one column of a Parquet file, converted to text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = _require_name(column, path)
    try:
        with opened(path) as content, pq.ParquetFile(content) as file:
            require_column(name, file.schema_arrow.names, str(path), remedy)
            for batch in file.iter_batches(columns=[name]):
                yield from batch.column(0).cast(pa.string()).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise Refused(f"{path} cannot be read as Parquet: {first_line(error, QUOTED)}") from error


def _require_name(column: Column, path: File) -> str:
    require(
        isinstance(column, str),
        f"data.text_column={column} is a position, which is only for CSV files without a header: "
        f"columns of {path} have names, so give one (a name made of digits in quotes: "
        f"data.text_column='\"{column}\"')",
    )
    return str(column)


def require_column(column: str, columns: list[str], where: str, remedy: str) -> None:
    """Raise ``Refused`` unless ``column`` is one of ``columns``. Their names are cut short: in a
    file without a header they are its first row."""
    require(
        column in columns,
        f"{where} has no column '{column}'; its columns: {bounded(', '.join(columns), QUOTED)}; "
        f"{remedy}",
    )


TABLES: dict[str, Callable[[File, Column, str], Iterator[str | None]]] = {
    ".csv": csv_texts,
    ".jsonl": json_texts,
    ".parquet": parquet_texts,
}
"""Readers by suffix. Other files are plain text."""
