"""Answers of the pipeline "audio-tagging" as tables and as files for Audacity and Raven."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from modeling_fftp.atomic_write import atomic_folder, atomic_write

from .texts import in_one_line

# What a row of a table is: an event of the timeline, a label of a whole recording, or a window with all scores.
ROWS = ("events", "files", "windows")
TABLES = ("csv", "parquet", "jsonl")
# What follows the name of a recording in the file about it.
FOLDERS = {"audacity": ".txt", "raven": ".Table.1.selections.txt"}
# What disks take of a file's name: bytes on Linux, characters on Windows.
LONGEST_NAME = 255
RAVEN_COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Label",
    "Score",
)  # fmt: skip
# Rows of parquet that are in memory at once.
ROW_GROUP = 10_000
Answers = Iterable[dict[str, Any]]


def find_writer(
    form: str, rows: str, labels: list[str], sampling_rate: int, recordings: Sequence[str]
) -> Callable[[Answers, Path], None]:
    """Find the function that writes answers, into one file or a folder of them.

    Args:
        form: One of `TABLES` or `FOLDERS`.
        rows: One of `ROWS`, of tables.
        labels: Labels of the model, in the order of its scores.
        sampling_rate: Rate of the model in Hz, which says how high Raven's selections reach.
        recordings: All recordings of the archive; the folders of the output mirror theirs.

    Raises:
        ValueError: Recordings that have no folder in common, as on drives of Windows, or names that are too long; or a
            label that is called like a column.
    """
    if form in FOLDERS:
        refuse_long_names(recordings, form)
        write = write_audacity if form == "audacity" else partial(write_raven, sampling_rate=sampling_rate)
        # By the names that answers have.
        common = common_folder(with_text_names({"file": name})["file"] for name in recordings)
        return partial(write_folder, common=common, write_one=write)
    if form == "jsonl":
        return write_jsonl
    schema = schema_of(rows, labels)
    return partial(write_csv if form == "csv" else write_parquet, rows=rows, schema=schema)


def with_text_names(record: dict[str, Any]) -> dict[str, Any]:
    """A record that tables can hold: bytes of a name that are not UTF-8 are written as such."""
    names = {name: record[name] for name in ("file", "error") if name in record}
    return record | {
        name: text.encode(errors="surrogateescape").decode(errors="backslashreplace") for name, text in names.items()
    }


def schema_of(rows: str, labels: list[str]) -> pa.Schema:
    """Columns of a table.

    Raises:
        ValueError: A label that is called like another column.
    """
    if rows == "windows" and (taken := sorted({"file", "start", "end"} & {*labels})):
        raise ValueError(
            f"the label {taken[0]!r} is called like a column of --rows windows; --format jsonl holds both"
        )
    columns = {
        "events": {"file": pa.string(), "start": pa.float64(), "end": pa.float64(), "label": pa.string(),
                   "score": pa.float64()},
        "files": {"file": pa.string(), "duration": pa.float64(), "label": pa.string(), "score": pa.float64()},
        "windows": {"file": pa.string(), "start": pa.float64(), "end": pa.float64(),
                    **dict.fromkeys(labels, pa.float64())},
    }  # fmt: skip
    return pa.schema(list(columns[rows].items()))


def is_answer(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is one of ours, of what a model heard and not of what somebody labelled."""
    columns = {*columns}
    return {"file", "labels", "timeline"} <= columns or columns in [{*schema_of(rows, []).names} for rows in ROWS]


def list_rows(answer: dict[str, Any], rows: str) -> Iterator[list]:
    """Rows of one recording, in the columns of `schema_of`."""
    file = answer["file"]
    if rows == "events":
        for entry in answer["timeline"]:
            yield [file, entry["start"], entry["end"], entry["label"], entry["score"]]
    elif rows == "files":
        for entry in answer["labels"]:
            yield [file, answer["duration"], entry["label"], entry["score"]]
    else:
        for window in answer["windows"]:
            yield [file, window["start"], window["end"], *window["scores"]]


def write_csv(answers: Answers, path: Path, rows: str, schema: pa.Schema) -> None:
    """A table of the recordings that could be read, and one of the others."""
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(schema.names)
        for answer in keep_readable(answers, path):
            writer.writerows(list_rows(answer, rows))


def write_parquet(answers: Answers, path: Path, rows: str, schema: pa.Schema) -> None:
    """Write the rows of answers as parquet."""
    with atomic_write(path) as part, parquet.ParquetWriter(part, schema) as writer:
        found = (row for answer in keep_readable(answers, path) for row in list_rows(answer, rows))
        while group := [*islice(found, ROW_GROUP)]:
            columns = [[row[index] for row in group] for index in range(len(schema))]
            writer.write_table(pa.table(columns, schema=schema))


def write_jsonl(answers: Answers, path: Path) -> None:
    """A line of JSON for each recording."""
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in keep_readable(answers, path))


def write_folder(
    answers: Answers, folder: Path, common: str, write_one: Callable[[dict[str, Any], Path], None]
) -> None:
    """A file for each recording, in folders like those of the recordings below the one that all have in common."""
    with atomic_folder(folder) as part:
        for answer in keep_readable(answers, folder):
            target = part / os.path.relpath(os.path.abspath(answer["file"]), common)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_one(answer, target)


def refuse_long_names(files: Iterable[str], form: str) -> None:
    """Stop on recordings whose names leave no room for what is added to them.

    Raises:
        ValueError: There is one.
    """
    for file in files:
        name = os.path.basename(file) + FOLDERS[form]
        if len(os.fsencode(name) if os.name == "posix" else name) > LONGEST_NAME:
            raise ValueError(f"{file}: the name is too long for {form}, which adds {FOLDERS[form]}; rename it")


def common_folder(files: Iterable[str]) -> str:
    """The deepest folder that holds all files."""
    common = None
    for file in files:
        parent = os.path.dirname(os.path.abspath(file))
        common = parent if common is None else os.path.commonpath([common, parent])
    return common or os.path.abspath(os.curdir)


def write_audacity(answer: dict[str, Any], target: Path) -> None:
    """A label track: start, end, label."""
    rows = ((entry["start"], entry["end"], in_one_line(entry["label"])) for entry in answer["timeline"])
    lines = [f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label in rows]
    target.with_name(target.name + FOLDERS["audacity"]).write_text("".join(lines), encoding="utf-8")


def write_raven(answer: dict[str, Any], target: Path, sampling_rate: int) -> None:
    """A selection table, over all frequencies that the model hears."""
    with target.with_name(target.name + FOLDERS["raven"]).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(RAVEN_COLUMNS)
        for number, entry in enumerate(answer["timeline"], start=1):
            times = (f"{entry['start']:.6f}", f"{entry['end']:.6f}")
            label, score = in_one_line(entry["label"]), f"{entry['score']:.4f}"
            writer.writerow([number, "Spectrogram 1", 1, *times, 0, sampling_rate / 2, label, score])


def keep_readable(answers: Answers, path: Path) -> Iterator[dict[str, Any]]:
    """The recordings that could be read; the others are named in `failures_path`, which is gone if there are none."""
    failed = []
    for answer in answers:
        if "error" in answer:
            failed.append([answer["file"], answer["error"]])
        else:
            yield answer
    if failed:
        with atomic_write(failures_path(path)) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["file", "error"])
            writer.writerows(failed)
    else:
        failures_path(path).unlink(missing_ok=True)


def failures_path(path: Path) -> Path:
    """File that lists the recordings that could not be read."""
    return path.with_name(f"{path.name}.failed.csv")
