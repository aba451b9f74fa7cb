"""Tables of events as DCASE has them: a row per event, or per clip with the labels that sound somewhere in it."""

import logging
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from datasets import Dataset, List

from feature_extraction.events import Event, has_times, read_events

from .labels import LabelColumn, read_labels
from .strong_labels import EVENT, EVENTS

logger = logging.getLogger(__name__)

# The times of an event, in seconds, and what a table calls its label.
TIMES, NAMES = ("onset", "offset"), ("event_label", "label", "class")
# What a table of clips calls their labels; in the last DCASE writes several, with commas between.
SEVERAL, SEPARATOR = "event_labels", ","
CLIP_NAMES = ("label", "labels", "class", "category", "event_label", SEVERAL)
# How R and pandas write a time that is not there.
ABSENT = ("na", "nan")


def has_event_rows(columns: Sequence[str]) -> bool:
    """Whether a table has an event, rather than a clip, in each row."""
    return {*TIMES} <= {*columns} and not {*NAMES}.isdisjoint(columns)


def group_events(tables: Sequence[Dataset], path_columns: Sequence[str]) -> Dataset:
    """One row per clip, with its events, of tables of events and of clips.

    Args:
        tables: Some with a row per event: "onset" and "offset" in seconds, and "event_label", "label" or "class"; a
            row with a path alone is a clip without events, one without times an event that sounds somewhere. Others
            with a row per clip: a column "events", or labels that sound somewhere in it; where they have times
            elsewhere, that counts.
        path_columns: Column of paths of each.

    Returns:
        The paths, "events", objects of onset, offset and label, and of the columns that all tables have those that say
        one thing of each clip.

    Raises:
        ValueError: A path that is none, or an event that lacks something or does not end after it starts; the message
            has its row.
    """
    clips: dict[str, list[Event]] = {}
    common = {*tables[0].column_names}.intersection(*(table.column_names for table in tables))
    common -= {*path_columns, *TIMES, *CLIP_NAMES, EVENTS}
    others = {name: {} for name in tables[0].column_names if name in common}
    for table, path_column in zip(tables, path_columns, strict=True):
        read = _row_reader(table)
        for row, example in enumerate(table, start=1):
            path = example[path_column]
            if not isinstance(path, str):
                raise ValueError(f"row {row}: {path_column!r} is {path!r}; expected a path")
            try:
                clips.setdefault(path, []).extend(read(example))
            except (ValueError, TypeError) as error:
                raise ValueError(f"row {row} of {path}: {error}") from error
            for name, values in others.items():
                values.setdefault(path, set()).add(example[name] if isinstance(example[name], Hashable) else None)
    kept = {
        name: [values[path].copy().pop() for path in clips]
        for name, values in others.items()
        if all(len(found) == 1 for found in values.values())
    }
    if dropped := sorted(others.keys() - kept.keys()):
        logger.warning("Columns that differ between the events of a clip are left behind: %s", ", ".join(dropped))
    columns = Dataset.from_dict({path_columns[0]: [*clips], **kept})
    events = [[dict(zip(EVENT, event, strict=True)) for event in _without_repeats(found)] for found in clips.values()]
    return columns.add_column(EVENTS, events, feature=List(EVENT))


def _row_reader(table: Dataset) -> Callable[[dict[str, Any]], list[Event]]:
    """What reads the events of a row."""
    names, read = (NAMES, _read_event) if has_event_rows(table.column_names) else ((EVENTS, *CLIP_NAMES), _read_clip)
    column = next(name for name in names if name in table.column_names)
    labels = read_labels(table, column, SEPARATOR if column == SEVERAL else None)
    return lambda example: read(example, column, labels)


def _read_event(example: dict[str, Any], column: str, labels: LabelColumn) -> list[Event]:
    """The event of a row, or none."""
    label, written = example[column], [example[name] for name in TIMES]
    times = [None if _is_absent(time) else float(time) for time in written]
    # What is written in all three is no name of a class.
    if times == [None, None] and (label is None or label in written):
        return []
    return read_events([(*times, None if label is None else labels.write(label))])


def _read_clip(example: dict[str, Any], column: str, labels: LabelColumn) -> list[Event]:
    """The labels of a row as events without times, or the events that it holds."""
    if example[column] is None:
        return []
    if labels.has_events:
        return [(*times, labels.write(label)) for *times, label in read_events(example[column])]
    return [(math.nan, math.nan, name) for name in labels.read(example[column])]


def _is_absent(time: Any) -> bool:
    return time is None or time != time or (isinstance(time, str) and time.lower() in ABSENT)


def _without_repeats(events: Sequence[Event]) -> list[Event]:
    """Events, without labels that sound somewhere where others say when."""
    timed = {label for *_, label in filter(has_times, events)}
    untimed = dict.fromkeys(event[2] for event in events if not has_times(event) and event[2] not in timed)
    return [*filter(has_times, events), *((None, None, label) for label in untimed)]
