"""Answers for an archive: many recordings, written as they come, resumed where they stopped, split over processes.

Every finished recording is one line of a journal beside the output; of several lines about one the last counts. When
the journals of all parts are complete they become the output, in the order of the recordings, and are removed.
"""

import csv
import glob
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from tqdm import tqdm

from modeling_fftp.sound_file_fftp import is_sound, walk
from modeling_fftp.window_pipeline_fftp import FFTPWindowPipeline

from .load import hash_model
from .tables import failures_path

# Recordings at a time, between two writes to the disk.
CHUNK = 32
# Last line of a journal.
COMPLETE = {"is_complete": True}
# Journals know recordings by the bytes of their names, whether those are UTF-8 or not.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}
# Settings whose values say nothing to people, and what differs where they do.
DIGESTS = {
    "recordings": "recordings, by number, order or the spelling of their paths",
    "weights": "weights",
    "extractor": "extractor",
}
# First sign of the name of a list of recordings, and what ends a line of it beside its break.
LIST, BLANK = "@", " \t\r"
# Signs that only patterns have.
WILDCARDS = frozenset("*?")


def find_recordings(sources: Sequence[str], lists: tuple[str, ...] = ()) -> list[str]:
    """Recordings that a command line names, each once, however its path is spelled, in its order.

    Args:
        sources: Files; folders, of which every visible sound file counts; patterns such as `2024*/**/*.flac`; and
            `@FILE`, a text file with one source per line. All are relative to the working directory.
        lists: The lists that name these sources, if they come from lists.

    Raises:
        ValueError: A folder or pattern without a sound file, or a list that cannot be read or is in itself.
    """
    found: list[str] = []
    for source in sources:
        if source.startswith(LIST):
            if source in lists:
                raise ValueError(f"{source}: the list names itself")
            found += find_recordings(_read_list(source), (*lists, source))
        elif os.path.isdir(source):
            files = [str(path) for path in walk(Path(source)) if is_sound(path)]
            if not files:
                raise ValueError(f"{source}: no sound files in this folder")
            found += files
        elif glob.has_magic(source) and not os.path.lexists(source):
            files = sorted(path for path in glob.glob(source, recursive=True) if is_sound(Path(path)))
            if not files and WILDCARDS & {*source}:
                raise ValueError(f"{source}: the pattern matches no sound files")
            # Brackets may be part of the name of a file that is not there.
            found += files or [source]
        else:
            # What is not there fails with the others that cannot be read.
            found.append(source)
    first = {os.path.abspath(path): path for path in reversed(found)}
    return [*dict.fromkeys(first[os.path.abspath(path)] for path in found)]


def _read_list(source: str) -> list[str]:
    """The lines of `@FILE` that hold something."""
    try:
        lines = Path(source[len(LIST) :]).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"{source}: the list cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: the list is not UTF-8") from error
    return [line for line in (line.strip(BLANK) for line in lines) if line]


@dataclass(frozen=True)
class Part:
    """A share of an archive.

    Args:
        index: Which, counted from 0.
        count: Of how many.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """From "3/16", counted from 1.

        Raises:
            ValueError: It is something else.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"--shard {text}: expected a number and how many there are, such as 3/16")
        return cls(int(index) - 1, int(count))

    def split(self, other: "Part") -> "Part":
        """A share of this share."""
        return Part(self.index * other.count + other.index, self.count * other.count)

    def of_process(self) -> "Part":
        """The share of this process, of those that torchrun or accelerate began.

        Raises:
            ValueError: The environment says half of which process this is, or what cannot be.
        """
        rank, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
        if not rank and not size:
            return self
        if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
            raise ValueError(
                f"RANK={rank!r} and WORLD_SIZE={size!r} in the environment name no process of several; unset them, or "
                "start by `accelerate launch`"
            )
        return self.split(Part(int(rank), int(size)))

    def of(self, recordings: Sequence[str]) -> list[str]:
        """Every `count`-th recording."""
        return [*recordings[self.index :: self.count]]


class Entry(NamedTuple):
    """Where the record of a recording begins in its journal, in bytes, and whether that could not be read."""

    place: int
    has_failed: bool


class Journal:
    """Finished recordings of a part, one line each; a line that was cut off is as if it had never begun.

    Args:
        path: Where.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def of(cls, output: Path, part: Part) -> "Journal":
        """The journal of a part of an output."""
        return cls(output.with_name(f"{output.name}.part-{part.index + 1:05d}-of-{part.count:05d}.jsonl"))

    def begin(self, settings: dict[str, Any], resume: bool) -> set[str]:
        """Recordings that are finished already; what could not be read is tried again.

        Args:
            settings: What the answers depend on.
            resume: Whether to go on with a journal that is there.

        Raises:
            FileExistsError: It is there, and nobody wants to go on with it.
            ValueError: It was written with other settings.
        """
        if self.path.exists():
            if not resume:
                raise FileExistsError(f"{self.path} is of a run that did not end: --resume goes on, or delete it")
            self._cut()
        if not self.path.exists() or not self.path.stat().st_size:
            self.append({"settings": settings})
        refuse_other_settings(self.path, settings)
        return {file for file, entry in self.entries().items() if not entry.has_failed}

    def append(self, *records: dict[str, Any]) -> None:
        """Add finished recordings, on the disk when this returns."""
        with self.path.open("a", **TEXT) as file:
            file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
            file.flush()
            os.fsync(file.fileno())

    def end(self) -> None:
        """Say that the part is complete, if nobody has."""
        if not self.is_complete():
            self.append(COMPLETE)

    def is_complete(self) -> bool:
        """Whether the part was done to its end, which its last line says."""
        if not self.path.exists():
            return False
        last = f"{json.dumps(COMPLETE)}\n".encode()
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - len(last)))
            return file.read() == last

    def entries(self) -> dict[str, Entry]:
        """What is known of each recording, in one reading."""
        entries, place = {}, 0
        with self.path.open("rb") as file:
            for line in file:
                record = read_line(line) if line.endswith(b"\n") else {}
                if "file" in record:
                    entries[record["file"]] = Entry(place, "error" in record)
                place += len(line)
        return entries

    def _cut(self) -> None:
        """Remove a last line that was not written to its end."""
        with self.path.open("rb+") as file:
            size = sum(len(line) for line in file if line.endswith(b"\n"))
            file.truncate(size)


def read_line(line: bytes) -> dict[str, Any]:
    """A line of a journal."""
    return json.loads(line.decode(**TEXT))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other runs from writing a file; what a killed run held is free.

    Raises:
        FileExistsError: Another run writes it.
    """
    lock = FileLock(f"{path}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise FileExistsError(f"{path} is being written by another run") from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def refuse_other_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse a journal whose answers do not belong to those of these settings; another process may just begin it.

    Raises:
        ValueError: It was begun with others.
    """
    with path.open(**TEXT) as file:
        line = file.readline()
    if not line.endswith("\n"):
        return
    began = json.loads(line).get("settings", {})
    changed = [
        DIGESTS[name] if name in DIGESTS else f"{name} {began.get(name)}, now {settings.get(name)}"
        for name in sorted({*began, *settings})
        if began.get(name) != settings.get(name)
    ]
    if changed:
        raise ValueError(f"{path} was begun with other settings: {'; '.join(changed)}. Repeat those, or delete it")


def answer_recordings(
    pipeline: FFTPWindowPipeline,
    recordings: Sequence[str],
    as_record: Callable[[dict[str, Any]], dict[str, Any]],
    chunk: int = CHUNK,
    **options: Any,
) -> Iterator[list[dict[str, Any]]]:
    """Answers for recordings, some at a time, in their order; memory does not grow with their number.

    Args:
        pipeline: Which answers.
        recordings: Paths.
        as_record: Makes of an answer what JSON can hold.
        chunk: How many at a time; they share batches, sorted by length.
        **options: Of the pipeline.

    Yields:
        Of each recording "file" and the record, or "error".
    """
    for start in range(0, len(recordings), chunk):
        files = [*recordings[start : start + chunk]]
        try:
            records = [as_record(answer) for answer in pipeline(files, **options)]
        except ValueError:
            # One of them cannot be read: each on its own tells which.
            records = [_answer_one(pipeline, file, as_record, **options) for file in files]
        yield [{"file": file, **record} for file, record in zip(files, records, strict=True)]


def _answer_one(
    pipeline: FFTPWindowPipeline, file: str, as_record: Callable[[dict[str, Any]], dict[str, Any]], **options: Any
) -> dict[str, Any]:
    try:
        return as_record(pipeline(file, **options))
    except ValueError as error:
        return {"error": str(error)}


def answer_archive(
    pipeline: FFTPWindowPipeline,
    recordings: Sequence[str],
    as_record: Callable[[dict[str, Any]], dict[str, Any]],
    output: Path,
    write: Callable[[Iterator[dict[str, Any]], Path], None],
    part: Part = Part(),
    resume: bool = False,
    settings: dict[str, Any] | None = None,
    chunk: int = CHUNK,
    **options: Any,
) -> int:
    """Answer for a part of an archive, and write the output if it is the last.

    Args:
        pipeline: Which answers.
        recordings: All of the archive.
        as_record: As for `answer_recordings`.
        output: File or folder that the answers of all parts become; it appears only when it is complete.
        write: Writes answers there.
        part: Which recordings are meant.
        resume: Whether to go on where a run stopped.
        settings: What the answers depend on besides the options.
        chunk: Recordings between two writes to the disk.
        **options: Of the pipeline.

    Returns:
        Recordings that could not be read: of all parts once the output is there, and else of this one.

    Raises:
        FileExistsError: The output is there, or a journal, and `resume` is not asked for; or another run writes it.
        ValueError: A journal, of this part or another, of other settings, weights or recordings.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal.of(output, part)
    with alone(journal.path):
        if output.exists():
            if not resume:
                raise FileExistsError(f"{output} is there already; choose another --output")
            return finish(output)
        # How many windows share a batch does not count, and machines may have room for different numbers.
        lasting = {name: value for name, value in options.items() if name != "batch_size"}
        settings = {**(settings or {}), **lasting, **digests(pipeline, recordings)}
        refuse_other_parts(output, part, settings)
        done = journal.begin(settings, resume)
        left = [file for file in part.of(recordings) if file not in done]
        answer_left(pipeline, left, as_record, journal, chunk, **options)
        # Once the last part has ended, any of them may make the output of the journals and remove them.
        failed = sum(entry.has_failed for entry in journal.entries().values())
        journal.end()
        if merge(output, part.count, recordings, write, settings):
            failed = count_failures(output)
            state, place = "is complete", f": {failures_path(output).name}"
        else:
            state, place = "waits for the other parts", ""
    unread = f"; {failed} recordings could not be read{place}" if failed else ""
    print(f"{output} {state}{unread}", file=sys.stderr)
    return failed


def digests(pipeline: FFTPWindowPipeline, recordings: Sequence[str]) -> dict[str, str]:
    """What answers depend on beside options; the model by what it is, as machines may have it in different places."""
    return {
        "recordings": hashlib.sha256(b"\0".join(map(os.fsencode, recordings))).hexdigest(),
        "extractor": hashlib.sha256(pipeline.feature_extractor.to_json_string().encode()).hexdigest(),
        "weights": hash_model(pipeline.model),
    }


def refuse_other_parts(output: Path, part: Part, settings: dict[str, Any]) -> None:
    """Refuse journals of other parts that do not go with one.

    Raises:
        ValueError: They are of another number of parts, or of other settings.
    """
    own, ending = Journal.of(output, part).path, f"-of-{part.count:05d}.jsonl"
    for path in journals_of(output):
        if not path.name.endswith(ending):
            raise ValueError(
                f"{path.name} is of a run in another number of parts than {part.count}; repeat that or delete it"
            )
        if path != own:
            refuse_other_settings(path, settings)


def answer_left(
    pipeline: FFTPWindowPipeline,
    recordings: Sequence[str],
    as_record: Callable[[dict[str, Any]], dict[str, Any]],
    journal: Journal,
    chunk: int,
    **options: Any,
) -> None:
    """Write the answers for what is left of a part into its journal, and say how far that is."""
    with tqdm(total=len(recordings), unit="file", disable=None) as bar:
        seconds, began = 0.0, time.monotonic()
        for records in answer_recordings(pipeline, recordings, as_record, chunk, **options):
            journal.append(*records)
            seconds += sum(record.get("duration", 0.0) for record in records)
            hours, minutes = seconds / 3600, (time.monotonic() - began) / 60
            bar.set_postfix_str(f"{hours:.2f} h of sound, {hours / minutes:.2f} h a minute")
            bar.update(len(records))


def as_text(record: dict[str, Any]) -> dict[str, Any]:
    """A record that tables can hold: bytes of a name that are not UTF-8 are written as such."""
    names = {name: record[name] for name in ("file", "error") if name in record}
    return record | {
        name: text.encode(errors="surrogateescape").decode(errors="backslashreplace") for name, text in names.items()
    }


def journals_of(output: Path) -> list[Path]:
    """Journals that wait to become an output."""
    return sorted(output.parent.glob(f"{glob.escape(output.name)}.part-*-of-*.jsonl"))


def finish(output: Path) -> int:
    """Remove what a run left that ended when its output was complete; how many recordings it could not read.

    Raises:
        ValueError: There are journals of a run that did not end, so the output is of something else.
    """
    journals = journals_of(output)
    for path in journals:
        if not Journal(path).is_complete():
            raise ValueError(f"{output} is there, and {path.name} of a run that did not end; move one of them away")
    for path in (*journals, Path(f"{output}.lock")):
        path.unlink(missing_ok=True)
    failed = count_failures(output)
    unread = f", but for {failed} recordings in {failures_path(output).name}" if failed else ""
    print(f"{output} is complete already{unread}; to answer anew, delete it", file=sys.stderr)
    return failed


def count_failures(output: Path) -> int:
    """Recordings that a complete output lacks."""
    failures = failures_path(output)
    if not failures.exists():
        return 0
    with failures.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def merge(
    output: Path,
    count: int,
    recordings: Sequence[str],
    write: Callable[[Iterator[dict[str, Any]], Path], None],
    settings: dict[str, Any],
) -> bool:
    """Make the output of the journals of all parts, if they are complete; they are removed then.

    Returns:
        Whether the output is there.

    Raises:
        ValueError: A part of other settings.
    """
    journals = [Journal.of(output, Part(index, count)) for index in range(count)]
    # Several processes may end at once.
    with FileLock(f"{output}.lock"):
        if not output.exists():
            if not all(journal.is_complete() for journal in journals):
                return False
            for journal in journals:
                refuse_other_settings(journal.path, settings)
            write(read_in_order(journals, recordings), output)
    for path in (*(journal.path for journal in journals), Path(f"{output}.lock")):
        path.unlink(missing_ok=True)
    return True


def read_in_order(journals: Sequence[Journal], recordings: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The record of each recording, as tables can hold it, from the journals of all parts."""
    entries = [journal.entries() for journal in journals]
    for index, recording in enumerate(recordings):
        # Parts hold every `count`-th recording. There may be more of them than a process may have open files.
        part = index % len(journals)
        with journals[part].path.open("rb") as file:
            file.seek(entries[part][recording].place)
            yield as_text(read_line(file.readline()))
