"""Labelled audio data sets of every form: where the sound and the labels stand; nothing is decoded here."""

import csv
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, List, load_dataset

logger = logging.getLogger(__name__)

AUDIO_COLUMNS = ("audio", "path", "file", "file_name", "filename")
LABEL_COLUMNS = ("label", "labels", "class", "category")
SPLIT_NAMES = ("train", "validation", "test")
# RAW has no header, so nothing says what it holds.
AUDIO_FORMATS = (set(soundfile.available_formats()) - {"RAW"}) | {"OGA", "OPUS", "AIF"}


def load_splits(
    source: str, config_name: str | None = None, data_dir: str | None = None, revision: str | None = None
) -> DatasetDict:
    """Splits of a data set, sound not decoded.

    Args:
        source: A Hub id; a local folder with parquet files; a local folder of sound files, `CLASS/clip.wav` or
            `train/CLASS/clip.wav`, `validation/...`, `test/...`; or a CSV, JSON or JSON-lines file with a column of
            paths, relative to that file or absolute.
        config_name: Configuration of a Hub data set.
        data_dir: Folder inside a Hub data set.
        revision: Revision of a Hub data set; "refs/convert/parquet" is the parquet form of those that are scripts.

    Raises:
        ValueError: A local folder in which no sound is found.
    """
    path = Path(source)
    if path.suffix in (".csv", ".json", ".jsonl"):
        return load_dataset("csv" if path.suffix == ".csv" else "json", data_files=str(path))
    if path.is_dir() and not any(path.rglob("*.parquet")):
        return _load_audio_folder(path)
    return load_dataset(source, config_name, data_dir=data_dir, revision=revision)


def _load_audio_folder(folder: Path) -> DatasetDict:
    """Sound files in one folder per class, below folders per split if there are any."""
    splits = {name: folder / name for name in SPLIT_NAMES if (folder / name).is_dir()} or {"train": folder}
    loaded = {}
    for name, root in splits.items():
        paths = sorted(path for path in root.glob("*/**/*") if path.is_file())
        files = [path for path in paths if path.suffix[1:].upper() in AUDIO_FORMATS]
        known = set(files)
        others = Counter(path.suffix for path in paths if path not in known and not path.name.startswith("."))
        if not files:
            raise ValueError(
                f"no sound files below {root}: expected {root}/CLASS/clip.wav, in a format that libsndfile reads; "
                f"found {dict(others)}"
            )
        if others:
            logger.warning("%s: files in no format that libsndfile reads are passed over: %s", root, dict(others))
        rows = {
            "audio": [str(path.absolute()) for path in files],
            "label": [path.relative_to(root).parts[0] for path in files],
        }
        loaded[name] = Dataset.from_dict(rows)
    return DatasetDict(loaded)


def find_column(dataset: Dataset, role: str, wanted: str | None = None) -> str:
    """The column that plays a role: as asked, or by its type, or by its name.

    Args:
        dataset: One split.
        role: "audio" or "label".
        wanted: The column's name, if it is known.

    Raises:
        ValueError: No such column.
    """
    kind, candidates = {"audio": (Audio, AUDIO_COLUMNS), "label": (ClassLabel, LABEL_COLUMNS)}[role]
    typed = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
    for name in (wanted,) if wanted is not None else (*typed, *candidates):
        if name in dataset.column_names:
            return name
    asked = f"no {role} column {wanted!r}" if wanted is not None else f"no {role} column found"
    raise ValueError(f"{asked}; the data has {dataset.column_names}")


def class_names(dataset: Dataset, column: str, separator: str | None = None) -> tuple[list[str], bool]:
    """Names of the classes in a label column, and whether a clip can have several.

    Args:
        dataset: One split.
        column: Column of class indices or names, or of lists of them.
        separator: What stands between the names where one string holds several, "," in AudioSet's files.
    """
    feature = dataset.features[column]
    is_multi_label = isinstance(feature, List) or separator is not None
    inner = feature.feature if isinstance(feature, List) else feature
    if isinstance(inner, ClassLabel):
        return list(inner.names), is_multi_label
    unique = {value for label in dataset[column] for value in label_values(label, separator)}
    return [str(value) for value in sorted(unique)], is_multi_label


def read_class_names(path: Path) -> dict[str, str]:
    """Display names by id, in the order of the classes, from a CSV file like AudioSet's: index, id, display name.

    Raises:
        ValueError: Columns or indices that are not so.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, skipinitialspace=True))[1:]
    if any(len(row) != 3 for row in rows) or [row[0] for row in rows] != [*map(str, range(len(rows)))]:
        raise ValueError(f"{path}: expected a header and the columns index (0, 1, ...), id, display name")
    return {identifier: name for _, identifier, name in rows}


def label_values(label: Any, separator: str | None) -> list:
    """The classes of one clip, as they are written."""
    if isinstance(label, str) and separator is not None:
        return [part.strip() for part in label.split(separator) if part.strip()]
    return label if isinstance(label, list) else [] if label is None else [label]
