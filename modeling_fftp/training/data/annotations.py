"""Annotations that lie beside recordings, a file for each: Raven's selection tables and Audacity's label tracks."""

import itertools
import logging
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from datasets import Dataset

from feature_extraction.events import Event, read_events
from modeling_fftp.sound_folders import is_sound, walk

from .event_tables import list_clips, read_time, refuse_problems
from .file_names import as_text
from .messages import name_some
from .tables import read_text

logger = logging.getLogger(__name__)

SUFFIX = ".txt"
# What Raven, BirdNET and Audacity's users put behind the name of a recording.
ENDING = re.compile(
    r"(\.table\.\d+)?(\.birdnet)?(\.(selections?|selection\.table|results|labels))?\.txt$", re.IGNORECASE
)
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
LABEL_LINE = re.compile(rf"(?P<onset>{NUMBER})\t(?P<offset>{NUMBER})(\t(?P<label>[^\t]*))?(\t(?P<score>[01]\.\d+))?")
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

    Those of `rec.wav` are called `rec.txt`, `rec.wav.txt`, `rec.Table.1.selections.txt` or the like, and lie in its
    folder, or in another where no second recording is called so. A table of Raven that names recordings itself, as
    "Begin File" or "Begin Path", may be called anything.

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
    if not clips:
        return None
    logger.info("%s: %d selection tables and label tracks say when what sounds", folder, len(texts) - len(stray))
    said = (
        ("recordings have events of several annotations, which are joined", _join_sources(sources)),
        ("annotations of no recording are passed over", stray),
        ("recordings without annotations are passed over", [path.name for path in files if _is_bare(path, clips)]),
    )
    for what, names in said:
        if names:
            logger.warning("%s: %d %s: %s", folder, len(names), what, name_some(names))
    return list_clips(clips, {"audio": [*clips]}, label_column)


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


class Recordings:
    """Sound files by their names, in small letters.

    Args:
        files: Sound and others.
    """

    def __init__(self, files: Iterable[Path]):
        self.found: dict[str, list[Path]] = defaultdict(list)
        for path in filter(is_sound, files):
            for name in {path.name.lower(), path.stem.lower()}:
                self.found[name].append(path)

    def find_own(self, annotation: Path) -> Path | None:
        """The recording that an annotation is called after: `a.b.wav` of `a.b.Table.1.selections.txt`.

        Raises:
            ValueError: Several recordings have the name, and their folders do not tell which is meant.
        """
        found = self._find(ENDING.sub("", annotation.name), annotation.parent.parts, annotation)
        return None if found is None else found[0]

    def find_named(self, names: Iterable[str], annotation: Path) -> dict[str, Path]:
        """The recordings that a table names, by these names; where there is none, it would lie beside the table.

        The folders of a name count as far as they are there: recorders call their files alike at every site. A
        recording that two names could mean is that of the one with more of its folders.
        """
        found, shared = {}, {}
        for name in names:
            path = PureWindowsPath(name)
            folders = path.parent.parts or annotation.parent.parts
            place = self._find(path.name, folders, annotation) or self._find(path.stem, folders, annotation)
            recording, count = place or (annotation.with_name(path.name), 0)
            found[name] = recording, count
            shared[recording] = max(count, shared.get(recording, 0))
        return {
            name: recording if count == shared[recording] else annotation.parent / PureWindowsPath(name).as_posix()
            for name, (recording, count) in found.items()
        }

    def _find(self, name: str, folders: Sequence[str], annotation: Path) -> tuple[Path, int] | None:
        """The recording of a name, with suffix or without, and how many of its folders are those that are meant."""
        shared = {path: _count_shared(path.parent.parts, folders) for path in self.found.get(name.lower(), [])}
        best = [path for path, count in shared.items() if count == max(shared.values())]
        best = [path for path in best if path.parent == annotation.parent] or best
        if len(best) > 1:
            raise ValueError(f"{annotation} could be of {name_some(map(str, best))}; rename all but one of them")
        return (best[0], shared[best[0]]) if best else None


def _count_shared(folders: Sequence[str], others: Sequence[str]) -> int:
    """How many folders at the end of two paths are called alike."""
    pairs = zip(reversed(folders), reversed(others), strict=False)
    return len([*itertools.takewhile(lambda pair: pair[0].lower() == pair[1].lower(), pairs)])


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
    return any(label and not MEASURED.fullmatch(label) for label in labels)


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
    selections = {}
    for number, cells in enumerate(itertools.islice(_rows_of(text), 1, None), start=1):
        selection = dict(zip(header, cells, strict=False))
        # Tables that were put together number from 1 again.
        same = tuple(map(selection.get, (SELECTION, *RECORDING, BEGIN, END))) if SELECTION in selection else number
        view = selections.setdefault(same, selection)
        view.update({name: cell for name, cell in selection.items() if cell and not view.get(name)})
    selections = dict(enumerate(selections.values(), start=1))
    if not selections and own is not None:
        yield str(own), None, None, None
    if not selections:
        return
    labels = _find_labels(path, header, label_column)
    named = {key: next(filter(None, map(cells.get, RECORDING)), None) for key, cells in selections.items()}
    if len({*named.values()}) > 1 and not all(selection.get(OFFSET) for selection in selections.values()):
        raise ValueError(
            f"{path} names several recordings, and no column {OFFSET.capitalize()!r} says when a selection begins in "
            "its own; let Raven measure that too"
        )
    places = recordings.find_named(dict.fromkeys(filter(None, named.values())), path)
    for key, selection in selections.items():
        recording = places.get(named[key], own)
        try:
            times = _read_times(selection)
        except ValueError as error:
            raise ValueError(f"{path}, selection {key}: {error}") from error
        if recording is not None:
            yield str(recording), *times, selection.get(labels)


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
