"""What becomes of a row of a data set: a decoded waveform with its target, and what is found out about it."""

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, List, Value

import modeling_fftp
from feature_extraction.events import read_events
from modeling_fftp.audio_stream_fftp import read_audio, sound_format
from modeling_fftp.sound_folders import is_sound

from .folders import PROBLEM
from .labels import LabelColumn
from .strong_labels import EVENT, EVENTS, count_events

# Columns that decoded clips have until they are reported, and the problem of a clip that is not wanted.
SOURCE, FACTS, EXCLUDED = "__source__", "__facts__", "excluded"
FACT_TYPES = {
    "seconds": Value("float64"), "rate": Value("int64"), "channels": Value("int64"), "peak": Value("float32"),
    "clipped": Value("float32"), "digest": Value("string"), "events": Value("int64"), "untimed": Value("int64"),
}  # fmt: skip
# What names without a suffix may lack.
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
# A sample this loud is at the end of the range.
FULL_SCALE = 0.999


@dataclass
class ClipDecoder:
    """Decodes, resamples and labels one clip of a data set.

    Args:
        audio_column: Column of undecoded audio or of paths.
        label_column: Column of labels.
        label_kind: How the column writes the classes.
        labels: Names of all classes in their order, by what stands for them in the data.
        sampling_rate: Wanted rate in Hz.
        is_multi_label: Whether targets are vectors over the classes.
        excluded: Classes, as the data writes them, whose clips are not wanted.
        none_labels: What the data writes for none of the classes.
        folder: What relative paths start from.
        keeps_events: Whether the events of a clip are wanted, and not only which classes it has.
        keeps_sound: Whether the sound is wanted, and not only what is found out about it.
        version: Version of this package: what another one decoded is not taken from the cache.
    """

    audio_column: str
    label_column: str
    label_kind: LabelColumn
    labels: dict[str, str]
    sampling_rate: int
    is_multi_label: bool = False
    excluded: Sequence[str] = ()
    none_labels: Sequence[str] = ()
    folder: Path = Path()
    keeps_events: bool = False
    keeps_sound: bool = True
    version: str = getattr(modeling_fftp, "__version__", "")

    def __post_init__(self):
        self.positions = {label: position for position, label in enumerate(self.labels)}

    @property
    def features(self) -> Features:
        """Types of what a call gives."""
        labels = List(Value("float32")) if self.is_multi_label else Value("int64")
        sound = {"audio": List(Value("float32"))} if self.keeps_sound else {}
        sound |= {EVENTS: List(EVENT)} if self.keeps_events else {}
        return Features(
            {**sound, "labels": labels, SOURCE: Value("string"), PROBLEM: Value("string"), FACTS: FACT_TYPES}
        )

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        """`audio` and `labels`; in `SOURCE`, `PROBLEM` and `FACTS` origin, what is wrong, and how it sounds."""
        source = locate(example[self.audio_column], self.folder)
        name = source.get("path") if isinstance(source, dict) else source
        name = name if isinstance(name, str) else None
        no_labels = np.zeros(len(self.labels), dtype=np.float32) if self.is_multi_label else -1
        result = {"labels": no_labels, SOURCE: name, PROBLEM: example.get(PROBLEM), FACTS: None}
        sound = {"audio": np.zeros(0, dtype=np.float32)} if self.keeps_sound else {}
        sound |= {EVENTS: []} if self.keeps_events else {}
        if result[PROBLEM] is not None:
            return sound | result
        try:
            labels = self.encode(example[self.label_column])
            if labels is None:
                return sound | result | {PROBLEM: EXCLUDED}
            if source is None:
                raise ValueError("no sound")
            waveform = read_audio(source, self.sampling_rate)
            facts = find_facts(source, waveform, self.sampling_rate)
            if self.label_kind.has_events:
                facts |= count_events(example[self.label_column], facts["seconds"])
        except ValueError as error:
            return sound | result | {PROBLEM: str(error)}
        result |= {"labels": labels, FACTS: facts}
        if self.keeps_events:
            result[EVENTS] = self.name_events(example[self.label_column])
        return result | ({"audio": waveform} if self.keeps_sound else {})

    def encode(self, label: Any) -> int | np.ndarray | None:
        """A class index, or a float32 vector over the classes, which may be zero; None for an excluded class.

        Raises:
            ValueError: No label, or an unknown one.
        """
        is_empty = label is None or label == "" or label != label
        if is_empty and "" in self.excluded:
            return None
        written = [] if is_empty and "" in self.none_labels else self.label_kind.read(label)
        written = [name for name in written if name not in self.none_labels]
        if not set(self.excluded).isdisjoint(written):
            return None
        unknown = [label for label in written if label not in self.positions]
        if unknown:
            raise ValueError(f"label {unknown[0]!r} is not among the {len(self.labels)} classes")
        positions = [self.positions[label] for label in written]
        if not self.is_multi_label:
            return positions[0]
        target = np.zeros(len(self.labels), dtype=np.float32)
        target[positions] = 1.0
        return target

    def name_events(self, events: Any) -> list[dict[str, Any]]:
        """Events of known classes, by the classes' names."""
        names = {**self.labels, **dict.fromkeys(self.none_labels)}
        written = [(onset, offset, self.label_kind.name_of(label)) for onset, offset, label in read_events(events)]
        named = [(onset, offset, names[label]) for onset, offset, label in written]
        return [dict(zip(EVENT, event, strict=True)) for event in named if event[2] is not None]


def locate(source: Any, folder: Path) -> Any:
    """A source with its path below a folder."""
    if isinstance(source, str):
        return str(find_file(folder, source))
    if isinstance(source, dict) and source.get("bytes") is None and source.get("path") is not None:
        return source | {"path": str(find_file(folder, source["path"]))}
    return source


def find_file(folder: Path, name: str) -> Path:
    """The file of a name below a folder.

    It may lack the suffix, as names in FSD50K and Warblr do, have the separators of Windows, or be in another of
    Unicode's forms, as archives of macOS bring it.
    """
    endings = ("",) if is_sound(folder / name) else ("", *SUFFIXES, *map(str.upper, SUFFIXES))
    for written in dict.fromkeys((name, name.replace("\\", "/"))):
        forms = (unicodedata.normalize(form, written) for form in ("NFC", "NFD"))
        for stem in dict.fromkeys((written, *forms)):
            for ending in endings:
                if os.path.exists(path := folder / f"{stem}{ending}"):
                    return path
    return folder / name


def find_facts(source: Any, waveform: np.ndarray, sampling_rate: int) -> dict[str, Any]:
    """What a report says about a clip: where it came at what rate, how loud it is, and what it equals.

    Args:
        source: Anything that `read_audio` takes.
        waveform: What that made of it.
        sampling_rate: The waveform's, in Hz.
    """
    loudness = np.abs(waveform)
    rate, channels = sound_format(source, sampling_rate)
    return {
        "seconds": len(waveform) / sampling_rate,
        "rate": rate,
        "channels": channels,
        "peak": loudness.max(),
        "clipped": np.mean(loudness >= FULL_SCALE),
        "digest": hashlib.blake2b(waveform.tobytes(), digest_size=16).hexdigest(),
        "events": 0,
        "untimed": 0,
    }
