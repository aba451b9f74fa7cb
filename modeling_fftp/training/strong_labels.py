"""Strong labels: events with onset and offset, from tables as DCASE has them, and recordings cut into windows."""

import logging
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List, Value

from feature_extraction.events import Event, crop_events, has_times, read_events
from modeling_fftp.audio_stream_fftp import sliding_windows

logger = logging.getLogger(__name__)

# The column of events; the times of an event, in seconds, and what a table calls its label.
EVENTS = "events"
TIMES, NAMES = ("onset", "offset"), ("event_label", "label", "class")
EVENT = {"onset": Value("float64"), "offset": Value("float64"), "label": Value("string")}
# What people round by when they mark where a sound ends.
TOLERANCE_SECONDS = 0.1


def has_event_rows(columns: Sequence[str]) -> bool:
    """Whether a table has an event, rather than a clip, in each row."""
    return {*TIMES} <= {*columns} and not {*NAMES}.isdisjoint(columns)


def group_events(table: Dataset, path_column: str) -> Dataset:
    """One row per clip, with its events, of a table with one row per event.

    Args:
        table: A column of paths, "onset" and "offset" in seconds, and "event_label", "label" or "class"; a row with a
            path alone is a clip without events, one without times an event that sounds somewhere. Of the other columns
            those stay that say one thing of each clip.
        path_column: Column of paths.

    Returns:
        The paths, "events", objects of onset, offset and label, and the other columns.

    Raises:
        ValueError: A path that is none, or an event that lacks something or does not end after it starts; the message
            has its row.
    """
    name = next(name for name in NAMES if name in table.column_names)
    feature = table.features[name]
    clips: dict[str, list[dict[str, Any]]] = {}
    others = {other: {} for other in table.column_names if other not in (path_column, *TIMES, name)}
    for row, example in enumerate(table, start=1):
        path, label = example[path_column], example[name]
        if not isinstance(path, str):
            raise ValueError(f"row {row}: {path_column!r} is {path!r}; expected a path")
        events = clips.setdefault(path, [])
        for other, values in others.items():
            values.setdefault(path, set()).add(example[other] if isinstance(example[other], Hashable) else None)
        if example["onset"] is example["offset"] is label is None:
            continue
        try:
            times = [None if example[time] is None else float(example[time]) for time in TIMES]
            label = feature.int2str(label) if isinstance(feature, ClassLabel) and label is not None else label
            ((onset, offset, label),) = read_events([(*times, label)])
        except (ValueError, TypeError) as error:
            raise ValueError(f"row {row} of {path}: {error}") from error
        events.append({"onset": onset, "offset": offset, "label": str(label)})
    kept = {
        other: [values[path].copy().pop() for path in clips]
        for other, values in others.items()
        if all(len(found) == 1 for found in values.values())
    }
    if dropped := sorted(others.keys() - kept.keys()):
        logger.warning("Columns that differ between the events of a clip are left behind: %s", ", ".join(dropped))
    columns = Dataset.from_dict({path_column: [*clips], **kept})
    return columns.add_column(EVENTS, [*clips.values()], feature=List(EVENT))


def count_events(events: Any, seconds: float) -> int:
    """How many events a clip has; each must be one, and end with the clip at the latest.

    Args:
        events: As `read_events` takes them.
        seconds: Length of the clip.

    Raises:
        ValueError: Such an event.
    """
    found = read_events(events)
    for event in found:
        if event[1] > seconds + TOLERANCE_SECONDS:
            raise ValueError(f"event {event} ends after its clip, which is {seconds:.2f} s long")
    return len(found)


def split_measurable(clips: Dataset) -> tuple[Dataset, Dataset]:
    """The clips whose events all have times, which a model can be measured by, and the others.

    Raises:
        ValueError: All have events without times.
    """
    has_all = np.array([all(map(has_times, read_events(events))) for events in clips[EVENTS]], dtype=bool)
    if not has_all.any():
        raise ValueError("all clips have events without times; expected some to measure by whose events have them")
    return clips.select(np.flatnonzero(has_all)), clips.select(np.flatnonzero(~has_all))


def keep_measurable(clips: Dataset, role: str) -> Dataset:
    """The clips of a split that a model can be measured by.

    Raises:
        ValueError: There is none.
    """
    try:
        kept, others = split_measurable(clips)
    except ValueError as error:
        raise ValueError(f"{role}: {error}") from error
    if others:
        logger.info("%s: %d clips are not used, since some event has no times", role, len(others))
    return kept


def cut_windows(
    waveform: np.ndarray, events: Sequence[Event], window_seconds: float, hop_seconds: float, sampling_rate: int
) -> Iterator[dict[str, Any]]:
    """Windows of a recording with their events, as a collator takes them.

    Args:
        waveform: (samples,), float32.
        events: Of the recording.
        window_seconds: Length of a window; a shorter recording is one window.
        hop_seconds: From one window to the next; the last one ends where the recording ends.
        sampling_rate: In Hz.

    Yields:
        "audio" (samples,), and "labels", the events in the window's own time, cut at its edges.
    """
    window, hop = round(window_seconds * sampling_rate), round(hop_seconds * sampling_rate)
    for start, samples, _ in sliding_windows(iter([waveform]), window, hop):
        end = start + len(samples)
        yield {"audio": samples, "labels": crop_events(events, start / sampling_rate, end / sampling_rate)}
