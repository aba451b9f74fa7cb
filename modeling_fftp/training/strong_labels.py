"""Strong labels: events with onset and offset, from tables as DCASE has them, and recordings cut into windows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from feature_extraction.events import Event, crop_events, read_events
from modeling_fftp.audio_stream_fftp import sliding_windows

# The column of events; the times of an event, in seconds, and what a table calls its label.
EVENTS = "events"
TIMES, NAMES = ("onset", "offset"), ("event_label", "label")
EVENT = {"onset": Value("float64"), "offset": Value("float64"), "label": Value("string")}
# What people round by when they mark where a sound ends.
TOLERANCE_SECONDS = 0.1


def has_event_rows(columns: Sequence[str]) -> bool:
    """Whether a table has an event, rather than a clip, in each row."""
    return {*TIMES} <= {*columns} and not {*NAMES}.isdisjoint(columns)


def group_events(table: Dataset, path_column: str) -> Dataset:
    """One row per clip, with its events, of a table with one row per event.

    Args:
        table: A column of paths, "onset" and "offset" in seconds, and "event_label" or "label"; a row with a path
            alone is a clip without events. Other columns are left behind.
        path_column: Column of paths.

    Returns:
        The paths, and "events", objects of onset, offset and label.

    Raises:
        ValueError: An event that lacks something or does not end after it starts; the message has its row.
    """
    name = next(name for name in NAMES if name in table.column_names)
    clips: dict[str | None, list[dict[str, Any]]] = {}
    columns = (table[column][:] for column in (path_column, *TIMES, name))
    for row, (path, onset, offset, label) in enumerate(zip(*columns, strict=True), start=1):
        events = clips.setdefault(path, [])
        if onset is offset is label is None:
            continue
        try:
            times = [None if time is None else float(time) for time in (onset, offset)]
            ((onset, offset, label),) = read_events([(*times, label)])
        except ValueError as error:
            raise ValueError(f"row {row} of {path}: {error}") from error
        events.append({"onset": onset, "offset": offset, "label": label})
    features = Features({path_column: Value("string"), EVENTS: List(EVENT)})
    return Dataset.from_dict({path_column: [*clips], EVENTS: [*clips.values()]}, features=features)


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
