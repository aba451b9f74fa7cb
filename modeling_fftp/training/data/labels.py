"""How a column writes the classes of a clip: names, indices, lists of either, one string of several, or a vector."""

import ast
import csv
import io
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, LargeList, List, Value

from feature_extraction.events import read_events

from .strong_labels import EVENT
from .tables import read_text

logger = logging.getLogger(__name__)

# A column in which DCASE writes several labels of a clip, with commas between them.
SEVERAL = "event_labels"
# A column of floats without a fraction is one of indices that some clip lacks, as pandas writes it.
LABEL_TYPES = ("string", "large_string", "int", "uint", "float", "bool")
# Names between which NumPy writes no comma; Python would join them.
NO_COMMA = re.compile(r"""['"]\s+['"]""")
# Format characters that change what one sees, of Persian and Indian scripts.
JOINERS = "\u200c\u200d"


@dataclass
class LabelColumn:
    """The classes of a column of labels, and how it writes them.

    Args:
        classes: Classes as they are written, in order.
        is_multi_label: Whether a clip can have several.
        index_names: The classes by index, where the column holds indices or vectors.
        is_vector: Whether a label is a vector with a 0 or 1 for each class.
        separator: What stands between the names where one string holds several, "," in AudioSet's files.
        has_events: Whether a label is a list of events; the classes are those of the events.
        is_text_of_list: Whether a label is the text of a list, see `parse_list`.
    """

    classes: list[str]
    is_multi_label: bool = False
    index_names: list[str] | None = None
    is_vector: bool = False
    separator: str | None = None
    has_events: bool = False
    is_text_of_list: bool = False

    def read(self, label: Any) -> list[str]:
        """The classes of one clip, as they are written.

        Raises:
            ValueError: No label, or none that a column of this kind can have.
        """
        if label is None or label == "" or label != label:
            raise ValueError("no label; if none of the classes is in such clips, --none_labels '' says so")
        if self.is_text_of_list:
            label = parse_list(label)
        if self.is_vector:
            if len(label) != len(self.index_names) or not {*label} <= {0, 1}:
                raise ValueError(f"label {label} is not a vector of 0 and 1 for the {len(self.index_names)} classes")
            return [name for name, value in zip(self.index_names, label, strict=True) if value]
        if self.has_events:
            label = sorted({name for *_, name in read_events(label)})
        values = label if isinstance(label, list) else split(label, self.separator)
        if not (values or self.is_multi_label):
            raise ValueError("no label")
        return [self.name_of(value) for value in values]

    def name_of(self, value: Any) -> str:
        """A class as it is written.

        Raises:
            ValueError: The value cannot be a class.
        """
        if value is None or (self.index_names is not None and value < 0):
            raise ValueError("no label")
        if self.index_names is None:
            return as_name(value)
        if value >= len(self.index_names):
            raise ValueError(f"label {value}: expected an index below {len(self.index_names)}, the number of classes")
        return self.index_names[value]


def read_labels(dataset: Dataset, column: str, separator: str | None = None, names: Sequence[str] = ()) -> LabelColumn:
    """Find out what a column of labels holds.

    Args:
        dataset: One split.
        column: Column of class indices or names, of lists of them, of vectors of 0 and 1, or of events. Lists and
            vectors may be texts, as in "['wren', 'robin']", if all are.
        separator: What stands between the names where one string holds several.
        names: Classes of a vector, in order; default: "label_0", "label_1", ...

    Raises:
        ValueError: Labels of another kind, or classes that are too much alike to be two.
    """
    feature = dataset.features[column]
    if separator is None and column == SEVERAL:
        separator = ","
    if separator == "":
        raise ValueError("--label_separator is empty; expected what stands between two labels, such as ,")
    is_list = isinstance(feature, (List, LargeList))
    inner = feature.feature if is_list else feature
    has_events = _are_events(feature)
    if has_events:
        if separator is not None:
            raise ValueError(
                "--label_separator is for labels of clips; give each event a row with one label. In tables beside "
                f"those of events a column {SEVERAL!r} may hold several, with commas between them"
            )
        inner, is_list = inner["label"] if is_list else inner["label"].feature, True
    if isinstance(inner, ClassLabel):
        return LabelColumn([*inner.names], is_list, [*inner.names], has_events=has_events)
    if not isinstance(inner, Value) or not inner.dtype.startswith(LABEL_TYPES):
        raise ValueError(f"the labels in {column!r} are {feature}; expected names, indices, or lists of either")
    if separator is not None and not inner.dtype.endswith("string"):
        raise ValueError(f"--label_separator splits text; the labels in {column!r} are {feature}")
    labels = dataset[column][:]
    lists = _parse_lists(labels) if not is_list and separator is None else None
    is_text_of_list = lists is not None
    if is_text_of_list:
        labels, is_list = lists, True
    if has_events:
        labels = [
            events["label"] if isinstance(events, dict) else events and [event["label"] for event in events if event]
            for events in labels
        ]
    elif is_list and _are_vectors(labels, column):
        length = len(next(label for label in labels if label is not None))
        names = [*names] or [f"label_{index}" for index in range(length)]
        if len(names) != length:
            raise ValueError(
                f"the labels in {column!r} are vectors of {length}; there are {len(names)} names of classes"
            )
        return LabelColumn(
            names, is_multi_label=True, index_names=names, is_vector=True, is_text_of_list=is_text_of_list
        )
    parts = [(label or []) if is_list else split(label, separator) for label in labels]
    values = {value for part in parts for value in part if value == value} - {None, ""}
    if inner.dtype.startswith("float") and not all(value.is_integer() for value in values):
        raise ValueError(f"the labels in {column!r} are numbers like {min(values)}; expected names or indices")
    classes = [as_name(value) for value in values]
    # Numbers by their size, also where text holds them.
    classes.sort(key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
    refuse_lookalikes(classes)
    if is_text_of_list:
        logger.info("The labels in %r are lists written as text", column)
    elif not has_events:
        _hint_at_lists(classes, column)
    return LabelColumn(
        classes,
        is_list or separator is not None,
        separator=separator,
        has_events=has_events,
        is_text_of_list=is_text_of_list,
    )


def _are_events(feature: Any) -> bool:
    """Whether a column holds lists of events, or objects of lists; a label alone is one without times."""
    if isinstance(feature, dict):
        return {*EVENT} <= {*feature} and all(isinstance(feature[name], (List, LargeList)) for name in EVENT)
    inner = feature.feature if isinstance(feature, (List, LargeList)) else None
    return isinstance(inner, dict) and ({*EVENT} <= {*inner} or {*inner} == {"label"})


def is_missing(label: Any) -> bool:
    """Whether a label says nothing, like those that challenges hide: None, NaN, "", -1, or an empty list."""
    return label is None or label != label or label in ("", -1) or label == []


def as_name(value: Any) -> str:
    """A class as text."""
    return str(int(value)) if isinstance(value, float) else str(value)


def split(label: Any, separator: str | None) -> list:
    """The values in one label that is no list."""
    if isinstance(label, str) and separator is not None:
        return [part.strip() for part in label.split(separator) if part.strip()]
    return [] if label is None else [label]


def parse_list(text: str) -> list[str | int]:
    """A list of names or whole numbers as Python or JSON writes it, such as "['wren', 'robin']", without empty names.

    Raises:
        ValueError: The text is no such list.
    """
    expected = f"{text!r} is no list of names or indices, as Python or JSON writes it"
    if not text.startswith("[") or NO_COMMA.search(text):
        raise ValueError(expected)
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(expected) from error
    if not isinstance(values, list) or not all(type(value) in (str, int) for value in values):
        raise ValueError(expected)
    return [value for value in values if value != ""]


def _parse_lists(labels: Sequence[Any]) -> list[list | None] | None:
    """The lists that texts stand for, None where there is no label; None if any label is no such text."""
    if not any(labels) or not all(isinstance(label, str) for label in labels if label):
        return None
    try:
        return [parse_list(label) if label else None for label in labels]
    except ValueError:
        return None


def _are_vectors(labels: Sequence[list | None], column: str) -> bool:
    """Whether lists of numbers are a 0 or 1 for each class, and not indices, of which none comes twice in a list.

    Raises:
        ValueError: The lists could be either.
    """
    labels = [label for label in labels if label is not None]
    lengths, values = {len(label) for label in labels}, {value for label in labels for value in label}
    if any(isinstance(value, str) for value in values):
        return False
    repeated = next((label for label in labels if len({*label}) < len(label)), None)
    if not values <= {0, 1}:
        if len(lengths) == 1 and repeated is not None:
            odd = next(label for label in labels if not {*label} <= {0, 1})
            raise ValueError(
                f"the labels in {column!r} are lists of one length, some with a value twice, such as {repeated} and "
                f"{odd}; expected vectors of 0 and 1, or lists of indices without doubles. Leave out clips of which "
                "something is unknown"
            )
        return False
    if len(lengths) > 1 and repeated is not None:
        raise ValueError(
            f"the labels in {column!r} are vectors like {repeated}, of {len(lengths)} lengths; expected one length"
        )
    if len(lengths) != 1 or lengths <= {0, 1}:
        return False
    if repeated is None and bool not in map(type, values):
        raise ValueError(
            f"the labels in {column!r} are like {labels[0]}: vectors of 0 and 1, or lists of two indices? Write names"
        )
    return True


def _hint_at_lists(classes: Sequence[str], column: str) -> None:
    """Say in the log where classes look like several in one string."""
    marks = {"[": "lists written as text need quotes and commas in each row; or write names with one of , ; | between"}
    marks |= {mark: f"--label_separator '{mark}' would split them" for mark in ",;|"}
    known = {*classes}
    for mark, advice in marks.items():
        found = [name for name in classes if mark in name]
        joined = [name for name in found if {part.strip() for part in name.split(mark)} <= known]
        if joined or len(found) > len(classes) / 4:
            logger.warning(
                "Classes in %r such as %r hold %r and are taken as they are: %s",
                column, (joined or found)[0], mark, advice,
            )  # fmt: skip
            return


def refuse_lookalikes(classes: Iterable[str]) -> None:
    """Stop on classes that blanks, invisible characters or Unicode's forms tell apart; log those that capitals do."""
    classes = [*classes]
    if alike := _alike(classes, _as_seen):
        raise ValueError(f"the classes {', '.join(map(ascii, alike[0]))} look alike; expected one way to write each")
    if alike := _alike(classes, str.casefold):
        logger.warning("Classes that differ in capital letters alone: %s", "; ".join(map(", ".join, alike)))


def _as_seen(name: str) -> str:
    """A name without what nobody sees in it: kinds of blanks, format characters, forms of one letter."""
    visible = (sign for sign in name if sign in JOINERS or unicodedata.category(sign) != "Cf")
    return " ".join(unicodedata.normalize("NFC", "".join(visible)).split())


def _alike(classes: Sequence[str], key: Callable[[str], str]) -> list[list[str]]:
    """Groups of several classes that a key does not tell apart."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(key(name), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def read_class_names(path: Path) -> dict[str, str]:
    """Display names by id, in the order of the classes, from a CSV file like AudioSet's: index, id, display name.

    Raises:
        ValueError: Columns or indices that are not so, or an id or name that comes twice.
    """
    rows = list(csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True))[1:]
    if not rows or any(len(row) != 3 for row in rows) or [row[0] for row in rows] != [*map(str, range(len(rows)))]:
        raise ValueError(f"{path}: expected a header and the columns index (0, 1, ...), id, display name")
    for column, kind in ((1, "id"), (2, "display name")):
        value, count = Counter(row[column] for row in rows).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{path}: the {kind} {value!r} stands for {count} classes; expected one")
    return {identifier: name for _, identifier, name in rows}
