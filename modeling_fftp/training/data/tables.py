"""Tables of clips in text or parquet files; every cell arrives as it was written."""

import codecs
import csv
import io
import json
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from pyarrow import parquet

from .messages import name_some

DELIMITED = (".csv", ".tsv", ".txt")
JSON = (".json", ".jsonl", ".ndjson")
TABLES = (".csv", ".tsv", *JSON, ".parquet")
# How a list of objects begins, or an object with one in it.
LIST = re.compile(r'\s*(\[|\{\s*"[^"]*"\s*:\s*\[)\s*\{')
# A name in a JSON object. In a broken file each quote may begin one, so none is sought to the end of the file.
KEY = re.compile(r'"((?:[^"\\]|\\.){0,200})"\s*:')
# Lines of comment in front of everything else, and what makes a header one.
COMMENTS = re.compile(r"(?:[ \t]*#.*\n)+")
COMMENT_SIGN = re.compile(r"^[ \t]*#+ *(?=\w)")
DELIMITERS = ",;\t|"


def is_table(path: Path) -> bool:
    """Whether a name is that of a table."""
    return path.suffix.lower() in TABLES


def read_table(path: Path) -> Dataset:
    """A table as a data set.

    In delimited text every cell is a string, without the spaces around it, and only an empty cell is None: "None",
    "01" and "1.0" stay what they are. Lines that begin with # may stand before the header, and empty columns, as
    spreadsheets write them, behind the last. A JSON file holds a list of objects, or an object with such a list in
    it, as AST's `{"data": [...]}`; a JSON-lines file one object per line.

    Args:
        path: .csv, .tsv, .json, .jsonl, .ndjson or .parquet, in small or capital letters.

    Raises:
        ValueError: A file that cannot be read so; the message names it, and the line or column.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        names = read_schema(path).names
        if not parquet.read_metadata(path).num_rows:
            raise ValueError(f"{path} holds no rows, of the columns {names}")
        return Dataset.from_parquet(str(path))
    text = read_text(path)
    if suffix in DELIMITED:
        columns = _read_delimited(text, path)
    else:
        columns = _as_columns(_read_json(text, path, is_lines=suffix != ".json"), path)
    if not columns or not any(columns.values()):
        raise ValueError(f"{path} holds no rows")
    try:
        return Dataset.from_dict(columns)
    except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError) as error:
        raise ValueError(f"{path} holds what no column can: {error}") from error


def read_schema(path: Path) -> pa.Schema:
    """Columns and types of a parquet file.

    Raises:
        ValueError: The file is no parquet.
    """
    try:
        return parquet.read_schema(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a parquet file: {error}") from error


def read_text(path: Path) -> str:
    """A file in UTF-8, or in UTF-16 where its first bytes say so.

    Raises:
        ValueError: The file is in neither encoding.
    """
    data = path.read_bytes()
    try:
        return data.decode(_find_encoding(data))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte {error.start} is {data[error.start]:#x}. Save it so; Excel calls it CSV UTF-8"
        ) from error


def _find_encoding(data: bytes) -> str:
    return "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def read_header(path: Path) -> list[str]:
    """Names of the columns of a text file, or of its objects, whatever is wrong with the rest; none of others."""
    if path.suffix.lower() not in (*DELIMITED, *JSON):
        return []
    data = path.read_bytes()
    text = data.decode(_find_encoding(data), errors="replace")
    if path.suffix.lower() == ".json" and not LIST.match(text):
        return []
    if path.suffix.lower() in JSON:
        return [*dict.fromkeys(KEY.findall(text))]
    text = _blank_comments(text, path)
    return [cell.strip(' "\r') for cell in _first_line(text).split(_find_delimiter(text, path))]


def _first_line(text: str) -> str:
    return text.lstrip().partition("\n")[0]


def _find_delimiter(text: str, path: Path) -> str:
    """What separates cells, by the header."""
    return "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=_first_line(text).count)


def _blank_comments(text: str, path: Path) -> str:
    """A text whose comments before the header are empty lines.

    The last one is the header itself, as in AudioSet's tables, where it has as many cells as the line below it.
    """
    if (comments := COMMENTS.match(text)) is None:
        return text
    lines, rest = comments.group().split("\n")[:-1], text[comments.end() :]
    last = COMMENT_SIGN.sub("", lines[-1])
    delimiter = _find_delimiter(last, path)
    counts = [
        len(next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))) for line in (last, _first_line(rest))
    ]
    header = last if counts[0] == counts[1] else ""
    return "\n" * (len(lines) - 1) + f"{header}\n{rest}"


def _read_delimited(text: str, path: Path) -> dict[str, list[str | None]]:
    """Columns of strings; the header decides what separates cells."""
    text = _blank_comments(text, path)
    delimiter = _find_delimiter(text, path)
    rows = _split_tabs(text, path) if delimiter == "\t" else _split_rows(text, path, delimiter)
    if len(rows) < 2:
        return {}
    names = rows[0]
    if len({*names}) < len(names):
        raise ValueError(f"{path}: the header has the columns {names}; expected a different name for each")
    return {
        name: [cell or None for cell in column]
        for name, column in zip(names, zip(*rows[1:], strict=True), strict=True)
    }


def _split_rows(text: str, path: Path, delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> list[list[str]]:
    """Cells of the rows that have any.

    Raises:
        ValueError: A row has more or fewer than the first, or a quote has no end.
    """
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=delimiter, skipinitialspace=True, strict=True, quoting=quoting)
    rows: list[list[str]] = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            # Spreadsheets write empty cells behind the last.
            while rows and not cells[-1] and len(cells) > len(rows[0]):
                cells.pop()
            if rows and len(cells) != len(rows[0]):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells; the header has {len(rows[0])}, {rows[0]}"
                )
            rows.append(cells)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    while rows and not any(row[-1] for row in rows):
        for row in rows:
            row.pop()
    return rows


def _split_tabs(text: str, path: Path) -> list[list[str]]:
    """The same with tabs, between which many write text with quotes in it: a first one would swallow what follows."""
    rows = None
    try:
        rows = _split_rows(text, path, "\t")
        if not any("\n" in cell for cell in chain.from_iterable(rows)):
            return rows
        return _split_rows(text, path, "\t", csv.QUOTE_NONE)
    except ValueError:
        # Somebody quoted a line break, or a quote swallowed the end of a row.
        return rows or _split_rows(text, path, "\t", csv.QUOTE_NONE)


def _read_json(text: str, path: Path, is_lines: bool) -> list[dict[str, Any]]:
    """Objects, one per clip."""
    if is_lines:
        rows = []
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                rows.append(_parse_json(line, f"{path}, line {number}"))
    else:
        rows = _parse_json(text, str(path))
        if isinstance(rows, dict):
            lists = [value for value in rows.values() if isinstance(value, list)]
            if len(lists) != 1:
                raise ValueError(
                    f"{path} holds an object of {name_some(rows)}; expected a list of objects, or one such in it"
                )
            rows = lists[0]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} holds no list of objects, one per clip")
    return rows


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        advice = ". Call a file .jsonl that has an object in each line" if error.msg == "Extra data" else ""
        raise ValueError(f"{where} is not valid JSON: {error}{advice}") from error


def _as_columns(rows: Sequence[dict[str, Any]], path: Path) -> dict[str, list]:
    """Columns of rows that may lack some; each of one type."""
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))}
    for name, values in columns.items():
        _check_types(name, values, path)
    return columns


def _check_types(name: str, values: Sequence, path: Path) -> None:
    """Refuse a column of several types, of which Arrow would make one, or fail."""
    kinds: dict[str, Any] = {}
    for value in values:
        if value is not None:
            kinds.setdefault("number" if type(value) in (int, float) else type(value).__name__, value)
    if len(kinds) > 1:
        raise ValueError(f"{path}: column {name!r} holds {' and '.join(map(repr, kinds.values()))}; expected one type")
    if "list" in kinds:
        _check_types(name, [*chain.from_iterable(value for value in values if value is not None)], path)
