"""Journals of an archive: of every finished recording one line; of several lines about one the last counts."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .parts import Part
from .tables import with_text_names

# Last line of a journal.
COMPLETE = {"is_complete": True}
# Journals know recordings by the bytes of their names, whether those are UTF-8 or not.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}
# How the line of a recording begins, and how that of a failure goes on.
FIRST, FAILED = '{"file": ', ', "error": '
# Settings whose values say nothing to people, and what differs where they do.
DIGESTS = {
    "recordings": "recordings, by number, order or the spelling of their paths",
    "weights": "weights",
    "extractor": "extractor",
}


class Entry(NamedTuple):
    """Place of a recording's record in its journal, in bytes, and whether the recording could not be read."""

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
        """Open the journal, which is made where it is missing, and cut off a line that was not written to its end.

        Args:
            settings: What the answers depend on.
            resume: Whether to go on with a journal that is there.

        Returns:
            Recordings that are finished already; what could not be read is tried again.

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
        with self.path.open("a", newline="\n", **TEXT) as file:
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
        """Find the entry of each recording, in one reading."""
        entries, place = {}, 0
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and (head := read_head(line)):
                    recording, has_failed = head
                    entries[recording] = Entry(place, has_failed)
                place += len(line)
        return entries

    def _cut(self) -> None:
        """Remove a last line that was not written to its end."""
        with self.path.open("rb+") as file:
            size = sum(len(line) for line in file if line.endswith(b"\n"))
            file.truncate(size)


def read_head(line: bytes) -> tuple[str, bool] | None:
    """The recording of a line, and whether it failed, or None. What else is there, maybe megabytes, is not parsed."""
    text = line.decode(**TEXT)
    if not text.startswith(FIRST):
        return None
    recording, end = json.JSONDecoder().raw_decode(text, len(FIRST))
    return recording, text.startswith(FAILED, end)


def read_line(line: bytes) -> dict[str, Any]:
    """A line of a journal."""
    return json.loads(line.decode(**TEXT))


def refuse_other_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse a journal whose answers do not belong to those of these settings; another process may just begin it.

    Raises:
        ValueError: The journal was begun with other settings.
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


def journals_of(output: Path) -> list[Path]:
    """Journals that wait to become an output."""
    return sorted(output.parent.glob(f"{glob.escape(output.name)}.part-*-of-*.jsonl"))


def read_in_order(journals: Sequence[Journal], recordings: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The record of each recording, as tables can hold it, from the journals of all parts."""
    entries = [journal.entries() for journal in journals]
    for index, recording in enumerate(recordings):
        # Parts hold every `count`-th recording. There may be more of them than a process may have open files.
        part = index % len(journals)
        with journals[part].path.open("rb") as file:
            file.seek(entries[part][recording].place)
            yield with_text_names(read_line(file.readline()))
