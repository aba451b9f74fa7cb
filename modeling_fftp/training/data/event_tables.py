"""Tables of events as DCASE has them: a row per event, or per clip with the labels that sound somewhere in it."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset, List, Value

from feature_extraction.events import Event, has_times, read_events

from .labels import SEVERAL, LabelColumn, read_labels
from .messages import name_some
from .strong_labels import EVENT, EVENTS

logger = logging.getLogger(__name__)

# The times of an event, in seconds, and what a table calls its label.
TIMES, NAMES = ("onset", "offset"), ("event_label", "label", "class")
# What a table of clips calls their labels.
CLIP_NAMES = ("label", "labels", "class", "category", "event_label", SEVERAL)
# How others write a time that is not there: pandas, R.
ABSENT = ("", "na", "nan")
# Paths that begin so are those without it.
HERE = "./"
# The column that divides a table into splits.
SPLIT_COLUMN = "split"


def has_event_rows(columns: Sequence[str], label_column: str | None = None) -> bool:
    """Whether a table has an event, rather than a clip, in each row; its label is in a given column or in `NAMES`."""
    return {*TIMES} <= {*columns} and not {*_names(label_column)}.isdisjoint(columns)


def group_events(
    tables: Mapping[str, Dataset], path_columns: Sequence[str], label_column: str | None = None
) -> Dataset:
    """One row per clip, with its events, of tables of events and of clips.

    Args:
        tables: By their names, which errors mention. Some have a row per event: "onset" and "offset" in seconds, and
            "event_label", "label" or "class"; a row with a path alone is a clip without events, one without times an
            event that sounds somewhere. Others have a row per clip: a column "events", or labels that sound somewhere
            in it. A label that has times in one of them needs no mention without.
        path_columns: Column of paths of each.
        label_column: Column of labels in those that have a row per event; default: as above.

    Returns:
        The paths, `label_column` or "events", objects of onset, offset and label, and the columns that all tables
        have, as far as they say the same in all rows of a clip.

    Raises:
        ValueError: A path that is none, an event that lacks something or does not end after it starts, the message has
            its row and that of others; or a column of splits that some tables lack, or that gives a clip two.
    """
    clips: dict[str, list[Event]] = {}
    problems: list[tuple[str, str]] = []
    others = _common_columns(tables, (*path_columns, *_names(label_column)))
    for (name, table), path_column in zip(tables.items(), path_columns, strict=True):
        try:
            read = _row_reader(table, label_column)
        except ValueError as error:
            raise ValueError(f"{name}: {error}" if name else str(error)) from error
        for row, example in enumerate(table, start=1):
            where = f"{name}, row {row}" if name else f"row {row}"
            path = example[path_column]
            if not isinstance(path, str):
                raise ValueError(f"{where}: {path_column!r} is {path!r}; expected a path")
            path = path.removeprefix(HERE)
            try:
                clips.setdefault(path, []).extend(read(example))
            except (ValueError, TypeError) as error:
                problems.append((f"{where} ({path})", str(error)))
            for other, values in others.items():
                values.setdefault(path, []).append(example[other])
    refuse_problems(problems)
    return list_clips(clips, {path_columns[0]: [*clips], **_shared_values(others)}, label_column)


def refuse_problems(problems: Sequence[tuple[str, str]]) -> None:
    """Stop on rows that cannot be read, by where each is and what is wrong with it.

    Raises:
        ValueError: A row cannot be read.
    """
    if problems:
        (first, problem), *rest = problems
        named = name_some(where for where, _ in rest)
        raise ValueError(f"{first}: {problem}" + (f"; {len(rest)} more rows cannot be read: {named}" if rest else ""))


def list_clips(clips: Mapping[str, Sequence[Event]], columns: dict[str, list], label_column: str | None) -> Dataset:
    """A row per clip: the columns, and its events as `label_column` or "events"."""
    events = [[dict(zip(EVENT, event, strict=True)) for event in _without_repeats(found)] for found in clips.values()]
    return Dataset.from_dict(columns).add_column(label_column or EVENTS, events, feature=List(EVENT))


def _names(label_column: str | None) -> tuple[str, ...]:
    """What the column of labels of a table of events may be called."""
    return NAMES if label_column is None else (label_column,)


def _common_columns(tables: Mapping[str, Dataset], known: Sequence[str]) -> dict[str, dict[str, list]]:
    """The columns beside paths, times and labels that all tables have, still empty; the log names the others."""
    columns = dict.fromkeys(name for table in tables.values() for name in table.column_names)
    columns = [name for name in columns if name not in (*known, *TIMES, *CLIP_NAMES, EVENTS)]
    lacking = [name for name in columns if not all(name in table.column_names for table in tables.values())]
    if split := next((name for name in lacking if name.lower() == SPLIT_COLUMN), None):
        raise ValueError(
            f"the tables {[*tables]} belong together, and some lack the column {split!r}; expected it in all"
        )
    if lacking:
        logger.warning("Columns that some of the tables lack are left behind: %s", ", ".join(map(repr, lacking)))
    return {name: {} for name in columns if name not in lacking}


def _shared_values(columns: Mapping[str, Mapping[str, list]]) -> dict[str, list]:
    """Keep the columns that say one thing of each clip; their values are those of every row, by clip."""
    kept, dropped = {}, []
    for name, values in columns.items():
        if all(value == found[0] for found in values.values() for value in found):
            kept[name] = [found[0] for found in values.values()]
        elif name.lower() == SPLIT_COLUMN:
            path, found = next((path, found) for path, found in values.items() if found.count(found[0]) < len(found))
            raise ValueError(f"the rows of {path} are of the splits {sorted({*map(str, found)})}; expected one split")
        else:
            dropped.append(name)
    if dropped:
        logger.warning(
            "Columns that differ between the events of a clip are left behind: %s", ", ".join(map(repr, dropped))
        )
    return kept


def _row_reader(table: Dataset, label_column: str | None) -> Callable[[dict[str, Any]], list[Event]]:
    """Choose the function that reads the events of a row."""
    has_events = has_event_rows(table.column_names, label_column)
    clip_names = (EVENTS, *CLIP_NAMES) if label_column is None else (label_column, EVENTS, *CLIP_NAMES)
    if not has_events and label_column is not None and {*TIMES} <= {*table.column_names}:
        raise ValueError(
            f"a table of events has the columns {table.column_names}; expected {label_column!r} among them"
        )
    names, read = (_names(label_column), _read_event) if has_events else (clip_names, _read_clip)
    column = next(name for name in names if name in table.column_names)
    if table.features[column] == Value("null"):
        return lambda example: []
    labels = read_labels(table, column)
    return lambda example: read(example, column, labels)


def _read_event(example: dict[str, Any], column: str, labels: LabelColumn) -> list[Event]:
    """The event of a row, or none."""
    label, written = example[column], [example[name] for name in TIMES]
    times = [read_time(time) for time in written]
    # What is written in all three is no name of a class.
    if times == [None, None] and (label is None or label in written):
        return []
    return read_events([(*times, None if label is None else labels.name_of(label))])


def _read_clip(example: dict[str, Any], column: str, labels: LabelColumn) -> list[Event]:
    """The labels of a row as events without times, or the events that it holds."""
    if example[column] is None:
        return []
    if labels.has_events:
        return [(*times, labels.name_of(label)) for *times, label in read_events(example[column])]
    return [(math.nan, math.nan, name) for name in labels.read(example[column])]


def read_time(time: Any) -> float | None:
    """A time in seconds, or None where there is none.

    Raises:
        ValueError: The cell holds no number.
    """
    if time is None or time != time or (isinstance(time, str) and time.strip().lower() in ABSENT):
        return None
    try:
        return float(time)
    except ValueError as error:
        hint = "; commas for points? `pandas.read_csv(..., decimal=',')` reads them" if "," in str(time) else ""
        raise ValueError(f"time {time!r}: expected seconds, or an empty cell{hint}") from error


def _without_repeats(events: Sequence[Event]) -> list[Event]:
    """Events, each once, without labels that sound somewhere where others say when."""
    timed = {label for *_, label in filter(has_times, events)}
    untimed = dict.fromkeys(event[2] for event in events if not has_times(event) and event[2] not in timed)
    return [*dict.fromkeys(filter(has_times, events)), *((None, None, label) for label in untimed)]
