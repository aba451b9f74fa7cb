"""Labelled audio data sets of every form, as decoded waveforms and targets, with `datasets` and no torchcodec."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, List, Value, load_dataset
from sklearn.model_selection import train_test_split

from .audio_fftp import read_audio

AUDIO_COLUMNS = ("audio", "path", "file", "file_name", "filename")
LABEL_COLUMNS = ("label", "labels", "class", "category")
SPLIT_NAMES = ("train", "validation", "test")
# RAW has no header, so nothing says what it holds.
AUDIO_FORMATS = (set(soundfile.available_formats()) - {"RAW"}) | {"OGA", "OPUS", "AIF"}


def load_splits(source: str, config_name: str | None = None) -> DatasetDict:
    """Splits of a data set, sound not decoded.

    Args:
        source: A Hub id; a local folder with parquet files; a local folder of sound files, `CLASS/clip.wav` or
            `train/CLASS/clip.wav`, `validation/...`, `test/...`; or a CSV, JSON or JSON-lines file with a column of
            paths, relative to that file or absolute.
        config_name: Configuration of a Hub data set.

    Raises:
        ValueError: A local folder in which no sound is found.
    """
    path = Path(source)
    if path.suffix in (".csv", ".json", ".jsonl"):
        return load_dataset("csv" if path.suffix == ".csv" else "json", data_files=str(path))
    if path.is_dir() and not any(path.rglob("*.parquet")):
        return _load_audio_folder(path)
    return load_dataset(source, config_name)


def _load_audio_folder(folder: Path) -> DatasetDict:
    """Sound files in one folder per class, below folders per split if there are any."""
    splits = {name: folder / name for name in SPLIT_NAMES if (folder / name).is_dir()} or {"train": folder}
    loaded = {}
    for name, root in splits.items():
        files = sorted(path for path in root.glob("*/**/*") if path.suffix[1:].upper() in AUDIO_FORMATS)
        if not files:
            raise ValueError(f"no sound files below {root}: expected {root}/CLASS/clip.wav")
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


def class_names(dataset: Dataset, column: str) -> tuple[list[str], bool]:
    """Names of the classes in a label column, and whether a clip can have several."""
    feature = dataset.features[column]
    is_multi_label = isinstance(feature, List)
    inner = feature.feature if is_multi_label else feature
    if isinstance(inner, ClassLabel):
        return list(inner.names), is_multi_label
    values = dataset[column]
    unique = {value for row in values for value in row} if is_multi_label else set(values)
    return [str(value) for value in sorted(unique)], is_multi_label


def decode_dataset(
    dataset: Dataset,
    audio_column: str,
    label_column: str,
    labels: Sequence[str],
    sampling_rate: int,
    *,
    folder: Path = Path(),
    keep_columns: Sequence[str] = (),
    num_proc: int | None = None,
) -> Dataset:
    """Decode and resample every clip once; the result stays in the cache of `datasets`.

    Args:
        dataset: One split.
        audio_column: Column of undecoded audio or of paths.
        label_column: Column of class indices or names, or of lists of them.
        labels: Names of all classes.
        sampling_rate: Wanted rate in Hz.
        folder: What relative paths start from.
        keep_columns: Other columns to keep.
        num_proc: Processes.

    Returns:
        `audio`, float32 waveforms (samples,); `labels`, an index, or a float32 vector over `labels` where clips can
        have several; and the kept columns.

    Raises:
        ValueError: A clip that cannot be decoded, or a label that is not in `labels`; both are named.
    """
    feature = dataset.features[label_column]
    is_multi_label = isinstance(feature, List)
    is_index = isinstance(feature.feature if is_multi_label else feature, ClassLabel)
    index = {name: position for position, name in enumerate(labels)}
    if isinstance(dataset.features[audio_column], Audio):
        dataset = dataset.cast_column(audio_column, Audio(decode=False))

    def encode(value) -> int:
        if is_index:
            return value
        if str(value) not in index:
            raise ValueError(f"label {str(value)!r} is not among the classes of the training split: {list(labels)}")
        return index[str(value)]

    def decode(example: dict) -> dict:
        source, label = example[audio_column], example[label_column]
        waveform = read_audio(folder / source if isinstance(source, str) else source, sampling_rate)
        if not is_multi_label:
            return {"audio": waveform, "labels": encode(label)}
        target = np.zeros(len(labels), dtype=np.float32)
        target[[encode(value) for value in label]] = 1.0
        return {"audio": waveform, "labels": target}

    kept = {name: dataset.features[name] for name in keep_columns}
    label_feature = List(Value("float32")) if is_multi_label else Value("int64")
    return dataset.map(
        decode,
        remove_columns=[name for name in dataset.column_names if name not in kept],
        features=Features({"audio": List(Value("float32")), "labels": label_feature, **kept}),
        num_proc=num_proc,
        desc="Decoding",
    )


def hold_out_group(dataset: Dataset, column: str, value: str) -> tuple[Dataset, Dataset]:
    """Split off the clips of one group (a fold, a speaker).

    Raises:
        ValueError: A group that holds no clips, or all.
    """
    groups = np.array([str(group) for group in dataset[column]])
    is_held_out = groups == value
    if not is_held_out.any() or is_held_out.all():
        raise ValueError(
            f"{column}={value!r} holds {is_held_out.sum()} of {len(groups)} clips; the groups are "
            f"{sorted(set(groups))}"
        )
    return dataset.select(np.flatnonzero(~is_held_out)), dataset.select(np.flatnonzero(is_held_out))


def hold_out_fraction(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split off a random fraction of the clips, in the same proportion of every class."""
    labels = np.asarray(dataset["labels"])
    keep, hold = train_test_split(
        np.arange(len(dataset)),
        test_size=fraction,
        random_state=seed,
        stratify=labels if labels.ndim == 1 else None,
    )
    return dataset.select(np.sort(keep)), dataset.select(np.sort(hold))
