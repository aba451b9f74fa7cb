"""Strong labels: events with onset and offset, the clips to measure a model by, and recordings cut into windows."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Value

from feature_extraction.events import TOLERANCE_SECONDS, Event, crop_events, has_times, read_events
from modeling_fftp.audio_stream_fftp import sliding_windows

logger = logging.getLogger(__name__)

# The column of events, and what one has; times are in seconds.
EVENTS = "events"
EVENT = {"onset": Value("float64"), "offset": Value("float64"), "label": Value("string")}


def count_events(events: Any, seconds: float) -> dict[str, int]:
    """Count the "events" of a clip, and the "untimed" ones; each must be one, and begin and end within the clip.

    Args:
        events: Events in any form that `read_events` takes.
        seconds: Length of the clip.

    Raises:
        ValueError: An event is malformed, or not within the clip.
    """
    found = read_events(events)
    for event in found:
        if event[0] >= seconds or event[1] > seconds + TOLERANCE_SECONDS:
            moment = "begins" if event[0] >= seconds else "ends"
            raise ValueError(f"event {event} {moment} after its clip, which is {seconds:.2f} s long")
    return {"events": len(found), "untimed": sum(not has_times(event) for event in found)}


def split_measurable(clips: Dataset) -> tuple[Dataset, Dataset]:
    """The clips whose events all have times, which a model can be measured by, and the others.

    Raises:
        ValueError: None of them has events.
    """
    found = [[*map(has_times, read_events(events))] for events in clips[EVENTS]]
    has_all = np.array([*map(all, found)], dtype=bool)
    if not any(events and all(events) for events in found):
        raise ValueError("no clip has events that all have times; expected some to measure by")
    return clips.select(np.flatnonzero(has_all)), clips.select(np.flatnonzero(~has_all))


def keep_measurable(clips: Dataset, role: str) -> Dataset:
    """The clips of a split that a model can be measured by.

    Raises:
        ValueError: No clip of the split says when something sounds.
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
        events: Events of the recording.
        window_seconds: Length of a window; a shorter recording is one window.
        hop_seconds: Seconds from one window to the next; the last one ends where the recording ends.
        sampling_rate: Rate in Hz.

    Yields:
        "audio" (samples,), and "labels", the events in the window's own time, cut at its edges.
    """
    window, hop = round(window_seconds * sampling_rate), round(hop_seconds * sampling_rate)
    for start, samples, _ in sliding_windows(iter([waveform]), window, hop):
        end = start + len(samples)
        yield {"audio": samples, "labels": crop_events(events, start / sampling_rate, end / sampling_rate)}
