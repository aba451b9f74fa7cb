"""Annotations that lie beside recordings, a file for each: Raven's selection tables and Audacity's label tracks."""

import itertools
import logging
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from feature_extraction.events import Event, read_events
from modeling_fftp.sound_folders import is_sound, walk

from .annotated_recordings import Recordings
from .event_tables import list_clips, read_time, refuse_problems
from .file_names import as_text
from .messages import name_some
from .tables import read_text

logger = logging.getLogger(__name__)

SUFFIX = ".txt"
# Raven counts seconds from the beginning of the first recording that it has open.
BEGIN, END = "begin time (s)", "end time (s)"
# The recording of a selection, and the seconds from where that begins.
RECORDING, OFFSET = ("begin path", "begin file"), "file offset (s)"
# Both views of a selection, waveform and spectrogram, have its number.
SELECTION = "selection"
# What people call the column of labels; Raven itself has none.
LABELS = ("label", "annotation", "species", "class", "call type", "common name", "species code")
# A line of a label track. Frequencies are in a line of their own, after a backslash.
NUMBER = r"-?[\d.,]+([eE][+-]?\d+)?"
LABEL_LINE = re.compile(
    rf"(?P<onset>{NUMBER})\t(?P<offset>{NUMBER})(\t(?P<label>[^\t]*))?(\t(?P<score>[01]\.\d+))?\t*"
)
FREQUENCIES = "\\"
# What stands where labels do in a file of measurements.
MEASURED = re.compile(NUMBER)
QUOTED = re.compile(r'^"(.*)"$')
# Recording, onset, offset and label of an event; of what has none, the recording alone.
Row = tuple[str, float | str | None, float | str | None, str | None]


def has_annotations(folder: Path) -> bool:
    """Whether a selection table or label track lies directly in a folder."""
    return any(map(_has_events, filter(None, map(_read_annotation, filter(Path.is_file, folder.iterdir())))))


def read_annotations(folder: Path, label_column: str | None = None) -> Dataset | None:
    """Recordings with the events that the annotations beside them name.

    Those of `rec.wav` are called `rec.txt`, `rec.wav.txt`, `rec.Table.1.selections.txt` or the like. They lie in its
    folder, or in another without sound, where no second recording is called so. A table of Raven that names recordings
    itself, as "Begin File" or "Begin Path", may be called anything.

    Args:
        folder: With recordings and annotations, in folders or not.
        label_column: Column of labels in Raven's tables; default: the one of `LABELS` that they have.

    Returns:
        "audio", absolute paths, and `label_column` or "events"; None where nothing is annotated so. An annotation
        without events says that nothing sounds. Recordings that have none are left behind, and the log counts them.

    Raises:
        ValueError: An annotation that cannot be read, or several recordings that it could be of.
    """
    files = [*walk(folder.absolute())]
    texts = {path: text for path in files if (text := _read_annotation(path)) is not None}
    recordings, clips, stray, sources = Recordings(files), {}, [], defaultdict(list)
    problems = [
        (f"{path.relative_to(folder.absolute())}, {place}", problem)
        for path in files
        if path not in texts
        for place, problem in _find_odd_lines(path)
        if recordings.find_own(path)
    ]
    if not problems and not any(map(_has_events, texts.values())):
        return None
    for path, text in texts.items():
        read = _read_selections if _is_table(text) else _read_label_track
        rows = [*read(path, text, recordings, label_column)]
        for recording in dict.fromkeys(row[0] for row in rows):
            sources[recording].append(str(path.relative_to(folder.absolute())))
        for number, (recording, *event) in enumerate(rows, start=1):
            try:
                clips.setdefault(recording, []).extend(_read_event(*event))
            except ValueError as error:
                problems.append((f"{path.relative_to(folder.absolute())}, event {number}", str(error)))
        if not rows:
            stray.append(path.name)
    named = (as_text(Path(recording)) for recording in clips)
    problems += [(name, problem) for name, problem in named if problem is not None]
    refuse_problems(problems)
    bare = [path.name for path in files if _is_bare(path, clips)] if clips else []
    said = (
        ("recordings have events of several annotations, which are joined", _join_sources(sources)),
        ("annotations of no recording are passed over; call each after its recording", stray),
        ("files called after recordings are no annotations that can be read", _find_unread(files, texts, recordings)),
        ("recordings without annotations are passed over", bare),
    )
    for what, names in said:
        if names:
            logger.warning("%s: %d %s: %s", folder, len(names), what, name_some(names))
    if not clips:
        return None
    logger.info("%s: %d selection tables and label tracks say when what sounds", folder, len(texts) - len(stray))
    return list_clips(clips, {"audio": [*clips]}, label_column)


def _find_unread(files: Iterable[Path], texts: Container[Path], recordings: Recordings) -> list[str]:
    """Names of text files beside recordings of their names that are neither selection tables nor label tracks."""
    others = (path for path in files if path.suffix.lower() == SUFFIX and path not in texts)
    return [path.name for path in others if recordings.lies_beside(path)]


def _join_sources(sources: Mapping[str, Sequence[str]]) -> list[str]:
    """The annotations of each recording that has several."""
    return [" and ".join(paths) for paths in sources.values() if len(paths) > 1]


def _is_bare(path: Path, clips: Container[str]) -> bool:
    """Whether a file is a recording that nothing annotates."""
    return is_sound(path) and str(path) not in clips


def _read_event(onset: float | str | None, offset: float | str | None, label: str | None) -> list[Event]:
    """The event of a row; none of a row that is its recording alone."""
    if (onset, offset, label) == (None, None, None):
        return []
    if not label or not label.strip():
        raise ValueError("it has no label: write what sounds there, or delete it")
    return read_events([(read_time(onset), read_time(offset), label.strip())])


def _read_annotation(path: Path) -> str | None:
    """The text of a selection table or label track, or of an empty file, which is a track without labels."""
    if path.suffix.lower() != SUFFIX or not path.is_file():
        return None
    try:
        text = read_text(path)
    except ValueError:
        if BEGIN.encode() in path.read_bytes().lower():
            raise
        return None
    return text if _is_table(text) or all(map(LABEL_LINE.fullmatch, _label_lines(text))) else None


def _has_events(text: str) -> bool:
    """Whether an annotation is one for sure: an empty file may be anything, and so may a track of pitch."""
    if _is_table(text):
        return True
    labels = [LABEL_LINE.fullmatch(line)["label"] for line in _label_lines(text)]
    # Digits are labels, of spoken digits for one, unless some are measured more finely.
    is_numbered = bool(labels) and all(label and label.isdecimal() for label in labels)
    return is_numbered or any(label and not MEASURED.fullmatch(label) for label in labels)


def _find_odd_lines(path: Path) -> list[tuple[str, str]]:
    """Where and why what is a label track but for some lines cannot be read."""
    try:
        text = read_text(path) if path.suffix.lower() == SUFFIX and path.is_file() else ""
    except ValueError:
        return []
    lines = {number: line for number, line in enumerate(text.splitlines(), start=1) if _label_lines(line)}
    odd = [
        (f"line {number}", f"{line!r}: expected onset, offset, label, with tabs")
        for number, line in lines.items()
        if not LABEL_LINE.fullmatch(line)
    ]
    others = [line for line in lines.values() if LABEL_LINE.fullmatch(line)]
    return odd if len(odd) < len(others) and _has_events("\n".join(others)) else []


def _label_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith(FREQUENCIES)]


def _read_label_track(path: Path, text: str, recordings: Recordings, label_column: str | None) -> Iterator[Row]:
    """The events of a label track, or its recording alone; nothing where that is not found."""
    own = recordings.find_own(path)
    if own is None:
        return
    lines = [LABEL_LINE.fullmatch(line) for line in _label_lines(text)]
    for line in lines:
        yield str(own), line["onset"], line["offset"], line["label"]
    if not lines:
        yield str(own), None, None, None


def _rows_of(text: str) -> Iterator[list[str]]:
    # Labels may hold quotes; R puts them around every cell.
    for line in text.splitlines():
        if line.strip():
            yield [QUOTED.sub(r"\1", cell.strip()) for cell in line.split("\t")]


def _header(text: str) -> list[str]:
    """Names of the columns, in small letters."""
    return [name.lower() for name in next(_rows_of(text), [])]


def _is_table(text: str) -> bool:
    return {BEGIN, END} <= {*_header(text)}


def _read_selections(path: Path, text: str, recordings: Recordings, label_column: str | None) -> Iterator[Row]:
    """The events of a selection table, or its recording alone; nothing where that is not found.

    Raises:
        ValueError: No column of labels, or several, or times that count from a recording of which nothing is known.
    """
    own, header = recordings.find_own(path), _header(text)
    rows = [dict(zip(header, cells, strict=False)) for cells in itertools.islice(_rows_of(text), 1, None)]
    if not rows and own is not None:
        yield str(own), None, None, None
    if not rows:
        return
    labels = _find_labels(path, header, label_column)
    selections = dict(enumerate(_join_views(rows, labels), start=1))
    named = {key: next(filter(None, map(cells.get, RECORDING)), None) for key, cells in selections.items()}
    places = recordings.find_named(dict.fromkeys(filter(None, named.values())), path)
    # Times count from the first one that was open: that which the table is called after, if it is called so.
    heard = {str(places.get(name, own)) for name in named.values()} | ({str(own)} if own is not None else set())
    if len(heard) > 1 and not all(selection.get(OFFSET) for selection in selections.values()):
        raise ValueError(
            f"{path} is of several recordings, and no column {OFFSET.capitalize()!r} says when a selection begins in "
            f"its own; let Raven measure that too. They are {name_some(sorted(heard))}"
        )
    for key, selection in selections.items():
        recording = places.get(named[key], own)
        try:
            times = _read_times(selection)
        except ValueError as error:
            raise ValueError(f"{path}, selection {key}: {error}") from error
        if recording is not None:
            yield str(recording), *times, selection.get(labels)


def _join_views(rows: Iterable[dict[str, str]], labels: str) -> list[dict[str, str]]:
    """Selections, of which rows are views: each cell is that of the first view that has one.

    Rows of one number and time are views of one selection, unless they differ in their labels: tables that were put
    together number from 1 again.
    """
    selections: dict[Any, list[dict[str, str]]] = {}
    for number, row in enumerate(rows):
        same = tuple(map(row.get, (SELECTION, *RECORDING, BEGIN, END))) if SELECTION in row else number
        joined, label = selections.setdefault(same, []), row.get(labels)
        for view in joined:
            if not label or view.get(labels) in (None, "", label):
                view.update({name: cell for name, cell in row.items() if cell and not view.get(name)})
                break
        else:
            joined.append(row)
    return [*itertools.chain.from_iterable(selections.values())]


def _read_times(selection: Mapping[str, str]) -> tuple[float | None, float | None]:
    """Onset and offset in the recording of a selection, in seconds."""
    begin, end, offset = (read_time(selection.get(name, "")) for name in (BEGIN, END, OFFSET))
    if None in (begin, end, offset):
        return begin, end
    return offset, offset + end - begin


def _find_labels(path: Path, header: list[str], label_column: str | None) -> str:
    """The column of labels of a selection table."""
    wanted = LABELS if label_column is None else (label_column.lower(),)
    found = [name for name in wanted if name in header]
    if len(found) != 1:
        could = f"{found} could be the labels" if found else f"none of {[*wanted]} is among them"
        raise ValueError(f"{path} has the columns {header}, and {could}; name one by --label_column_name")
    return found[0]
