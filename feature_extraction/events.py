"""Sound events of a clip, (onset, offset, label) with times in seconds, and how they move with its sound.

An event whose times nobody knows has NaN for both: it sounds somewhere in its clip.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Event = tuple[float, float, Any]
KEYS = ("onset", "offset", "label")
# What people round by when they mark where a sound begins or ends.
TOLERANCE_SECONDS = 0.1
# What a crop leaves of an event is dropped where it is shorter than this, the length of a frame in seconds.
SHORTEST_REST = 0.025


def has_times(event: Event) -> bool:
    """Whether it is known when an event sounds."""
    return not math.isnan(event[0])


def read_events(events: Iterable[Mapping[str, Any] | Sequence] | Mapping[str, Sequence]) -> list[Event]:
    """Events of any form: (onset, offset, label), objects with these keys or a label alone, or an object of lists.

    Where both times are None or NaN, or left out, nobody knows them.

    Raises:
        ValueError: Something else, or an event that does not end after it starts.
    """
    if not isinstance(events, Iterable) or isinstance(events, str):
        raise ValueError(f"events {events!r}: expected a list of them, or an object of lists")
    if isinstance(events, Mapping):
        if not all(isinstance(events.get(key), Iterable) for key in KEYS):
            raise ValueError(f"events {events!r}: expected lists of onsets, offsets and labels")
        if len({len(events[key]) for key in KEYS}) > 1:
            raise ValueError(f"events {events!r}: expected as many onsets and offsets as labels")
        events = zip(*(events[key] for key in KEYS), strict=True)
    found = []
    for event in events:
        try:
            if isinstance(event, Mapping):
                event = (None, None, event["label"]) if event.keys() == {"label"} else [event[key] for key in KEYS]
            onset, offset, label = event
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"event {event!r}: expected onset and offset in seconds, and label") from error
        onset, offset = (math.nan if time is None else time for time in (onset, offset))
        if isinstance(onset, str) or isinstance(offset, str):
            raise ValueError(f"event {(onset, offset, label)}: expected onset and offset as numbers, in seconds")
        is_unknown = math.isnan(onset) and math.isnan(offset)
        if label is None or not (is_unknown or 0 <= onset < offset):
            raise ValueError(
                f"event {(onset, offset, label)}: expected 0 <= onset < offset, in seconds, or neither of them, and a "
                "label"
            )
        found.append((float(onset), float(offset), label))
    return found


def roll_events(events: Sequence[Event], shift: float, seconds: float) -> list[Event]:
    """Events of a clip that was rolled along time around its own end; those that cross it are in two parts.

    Args:
        events: Events of the clip before.
        shift: Seconds to roll by; negative is towards the start.
        seconds: Length of the clip.
    """
    turns = (-seconds, 0.0, seconds)
    # The last event of a clip may end with its sound, a little after its last frame.
    inside = crop_events(filter(has_times, events), 0.0, seconds)
    moved = [(onset + shift % seconds + turn, offset + shift % seconds + turn, label)
             for onset, offset, label in inside for turn in turns]  # fmt: skip
    return [*crop_events(moved, 0.0, seconds), *itertools.filterfalse(has_times, events)]


def cut_events(events: Sequence[Event], stretches: Iterable[tuple[float, float]]) -> Iterator[list[Event]]:
    """The events of several stretches of a clip, from start to end in seconds each, as `crop_events` gives them."""
    times = np.array([event[:2] for event in events], dtype=float).reshape(-1, 2)
    for start, end in stretches:
        # An event without times is in all: comparisons with NaN are false.
        is_near = ~((times[:, 1] <= start) | (times[:, 0] >= end))
        yield crop_events([events[index] for index in np.flatnonzero(is_near)], start, end)


def crop_events(events: Iterable[Event], start: float, end: float) -> list[Event]:
    """The events of a stretch of the clip, in its own time; those that cross an edge are cut there.

    Less than half of an event that is shorter than `SHORTEST_REST` goes. Events without times stay, since nobody knows
    better.

    Args:
        events: Events of the whole clip.
        start: Start of the stretch, in seconds.
        end: End of the stretch, in seconds.
    """
    kept = []
    for onset, offset, label in events:
        # `max` and `min` return NaN where it comes first.
        first, last = max(onset, start), min(offset, end)
        rest = last - first
        if math.isnan(onset) or rest >= min(SHORTEST_REST, (offset - onset) / 2):
            kept.append((first - start, last - start, label))
    return kept
