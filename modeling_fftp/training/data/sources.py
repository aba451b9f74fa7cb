"""Labelled audio data sets of every form: where the sound and the labels stand; nothing is decoded here."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import (
    Audio,
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Value,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from huggingface_hub import DatasetCard

from modeling_fftp.serving.tables import is_answer
from modeling_fftp.sound_folders import is_sound, walk

from .bare_names import complete_names
from .event_tables import CLIP_NAMES, SPLIT_COLUMN, group_events, has_event_rows
from .folders import METADATA, divide, load_audio_folder
from .hub_source import load_from_hub
from .messages import name_some
from .splits import role_in, role_of
from .strong_labels import EVENTS
from .tables import is_table, read_header, read_schema, read_table

logger = logging.getLogger(__name__)

AUDIO_COLUMNS = ("audio", "path", "file", "file_name", "filename", "fname", "wav")
LABEL_COLUMNS = (*CLIP_NAMES, EVENTS)
# Types of columns of paths, and the column of folders that follows from them.
PATH_TYPES, FOLDER = (Value("string"), Value("large_string")), "folder"
# What others call a column of splits.
LIKE_SPLIT = ("set", "subset", "partition", "usage", "phase")
# What `save_to_disk` leaves: of several splits, and of one.
SAVED = ("dataset_dict.json", "state.json")
# Why a table of answers among recordings is no list of labels; whoever means it names the table itself.
PREDICTED = "what `fftp tag` heard, no labels"


class Columns(NamedTuple):
    """Names of columns where they are not as usual.

    Args:
        label: That of labels, in tables of events and of the events that become of them too.
        audio: That of sound or of paths.
    """

    label: str | None = None
    audio: str | None = None


USUAL = Columns()


def load_splits(
    source: str,
    config_name: str | None = None,
    data_dir: str | None = None,
    revision: str | None = None,
    columns: Columns = USUAL,
) -> DatasetDict:
    """Splits of a data set by their names, sound not decoded.

    Args:
        source: A Hub id; a local folder of parquet files, of sound files, see `load_audio_folder`, of tables, or as
            `save_to_disk` leaves it; or a table, see `read_table`, with a column of paths and a row for each clip or,
            as DCASE has it, for each event. A column "split" divides what is one split otherwise.
        config_name: Configuration of a Hub data set.
        data_dir: Folder inside a data set, or of the sound of a table.
        revision: Revision of a Hub data set; default: the newest, or of a script its parquet form.
        columns: Columns that have other names than usual.

    Raises:
        ValueError: A local folder or file in which no sound is found, or of which nobody can tell what it is; or a
            revision of one.
        FileNotFoundError: A path where nothing is.
    """
    if revision is not None and is_local(source):
        raise ValueError(f"--dataset_revision {revision} is for data sets of the Hub; {source} is here")
    splits = _load(source, config_name, data_dir, revision, columns)
    if any(lists_events(split.features, columns) for split in splits.values()):
        # A split without labels, as of a challenge, stays as it is.
        names = (*LABEL_COLUMNS, columns.label)
        labelled = {name: split for name, split in splits.items() if _has_any(split.column_names, names)}
        splits = DatasetDict(splits | {name: _join({"": split}, columns) for name, split in labelled.items()})
    if is_local(source):
        splits = _complete_names(splits, base_folder(source, data_dir), columns)
    # Before anybody looks at a row, which would decode it.
    for name, feature in next(iter(splits.values())).features.items():
        if isinstance(feature, Audio):
            splits = splits.cast_column(name, Audio(decode=False))
    return _divide_by_column(splits) if len(splits) == 1 else splits


def _load(
    source: str, config_name: str | None, data_dir: str | None, revision: str | None, columns: Columns
) -> DatasetDict:
    path = Path(source).expanduser()
    if path.is_file():
        if not is_table(path):
            raise ValueError(
                f"{path} is not a table of paths and labels; expected .csv, .tsv, .json, .jsonl or .parquet"
            )
        table = read_table(path)
        has_events = lists_events(table.features, columns)
        return DatasetDict({"train": _join({path.name: table}, columns) if has_events else table})
    if not path.is_dir():
        return load_from_hub(source, config_name, data_dir, revision)
    if any((path / name).is_file() for name in SAVED):
        saved = load_from_disk(str(path))
        return saved if isinstance(saved, DatasetDict) else DatasetDict({"train": saved})
    tables = sorted(file for file in path.iterdir() if is_table(file))
    if any(file.stem == METADATA for file in tables):
        return load_audio_folder(path, columns.label)
    # Once: folders on a network drive take long to look into.
    files = [*walk(path)]
    num_sounds, shards = sum(map(is_sound, files)), find_shards(files)
    shards = _with_labels(shards, columns.label) if num_sounds else shards
    if {*shards} <= {*tables} and any(lists_events(features_of(shard), columns) for shard in shards):
        return _load_tables(path, tables, columns, num_sounds)
    if shards and num_sounds:
        return _load_shards(path, shards)
    if shards:
        refuse_other_columns(shards)
        if not (config_name or data_dir):
            refuse_unread(path, shards)
        return load_dataset(str(path), config_name, data_dir=data_dir)
    if listed := _load_tables(path, tables, columns, num_sounds):
        return listed
    inner = find_folder(path, data_dir)
    return _load(str(inner), None, None, None, columns) if data_dir else load_audio_folder(inner, columns.label)


def is_local(source: str) -> bool:
    """Whether a source is a file or folder of this machine, and no Hub id."""
    return Path(source).expanduser().exists()


def public_name(source: str) -> str:
    """The bare name of a file or folder, which says nothing of this machine; a Hub id as it is."""
    return Path(source).expanduser().resolve().name if is_local(source) else source


def base_folder(source: str, data_dir: str | None = None) -> Path:
    """What the relative paths in a data set start from: its folder, or that of a table, or a folder in there."""
    path = Path(source).expanduser()
    return (path if path.is_dir() else path.parent) / (data_dir or "")


def find_folder(path: Path, data_dir: str | None) -> Path:
    """The folder of a data set, or one in there.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    folder = path / (data_dir or "")
    if not folder.is_dir():
        raise FileNotFoundError(f"{path} holds no folder {data_dir}, which --dataset_data_dir names")
    return folder


def split_column(names: Iterable[str]) -> str | None:
    """The column that says which split a clip is of."""
    return next((name for name in names if name.lower() == SPLIT_COLUMN), None)


def _divide_by_column(splits: DatasetDict) -> DatasetDict:
    """The splits that a column of the only one names, or what there is."""
    (table,) = splits.values()
    if (column := split_column(table.column_names)) is None:
        others = [name for name in table.column_names if name.lower() in LIKE_SPLIT]
        if named := [name for name in others if any(map(_is_role, {*read_names(table, name)}))]:
            logger.warning("The column %r names splits and is not called 'split': all rows are one split", named[0])
        return splits
    names = read_names(table, column)
    if not any(map(_is_role, {*names})):
        logger.warning(
            "The column %r holds %s, which are no names of splits such as train, validation and test: all rows are "
            "one split",
            column, name_some(sorted({*map(str, names)})),
        )  # fmt: skip
        return splits
    logger.info("The column %r says which split a clip is of", column)
    return divide(table, names)


def _is_role(name: Any) -> bool:
    return name is not None and role_of(str(name)) is not None


def read_names(table: Any, column: str) -> list:
    """What a column says of each row, classes by their names."""
    values, feature = table[column][:], table.features[column]
    if not isinstance(feature, ClassLabel):
        return values
    names = dict(enumerate(feature.names))
    return [names.get(value) for value in values]


def add_folders(split: Dataset, audio_column: str, wanted: str) -> Dataset:
    """A split with the column `FOLDER`, unless it has one or holds no paths, so that a folder can be a group.

    It holds the wanted name where a file lies below a folder of that name, and else the name of the file's own folder.
    """
    has_paths = isinstance(split, Dataset) and split.features[audio_column] in PATH_TYPES
    if FOLDER in split.column_names or not has_paths:
        return split
    folders = [Path(path or "").parts[:-1] for path in split[audio_column]]
    return split.add_column(FOLDER, [wanted if wanted in parts else "".join(parts[-1:]) for parts in folders])


def _path_column(present: Iterable[str], columns: Columns) -> str | None:
    """The column of paths among those of a table."""
    return next((name for name in (columns.audio, *AUDIO_COLUMNS) if name in present), None)


def _paths_in(table: Dataset, columns: Columns) -> list[str | None]:
    """The paths that a table lists; none where it holds the sound itself."""
    column = _path_column(table.column_names, columns)
    return table[column][:] if column is not None and table.features[column] in PATH_TYPES else []


def _complete_names(splits: DatasetDict, folder: Path, columns: Columns) -> DatasetDict:
    """Splits with the paths of recordings that they name without folders."""
    for name, split in splits.items():
        paths = complete_names(_paths_in(split, columns), folder)
        if paths is not None:
            column = _path_column(split.column_names, columns)
            splits[name] = split.remove_columns(column).add_column(column, paths)
    return splits


def lists_events(features: Features, columns: Columns) -> bool:
    """Whether a table has an event in each row, and the path of its clip; rows with sound in them are clips."""
    paths = _path_column(features, columns)
    return paths is not None and features[paths] in PATH_TYPES and has_event_rows([*features], columns.label)


def _join(tables: Mapping[str, Dataset], columns: Columns) -> Dataset:
    """One table with one row per clip, of several of events, or that stand beside such."""
    if len(tables) > 1:
        logger.info("The tables %s make one split", ", ".join(tables))
    paths = [_path_column(table.column_names, columns) for table in tables.values()]
    return group_events(tables, paths, columns.label)


def _load_tables(folder: Path, tables: list[Path], columns: Columns, num_sounds: int) -> DatasetDict | None:
    """The tables of a folder by splits; None where it holds none that list sound, but sound in folders."""
    listing = _find_listing(folder, tables, columns, num_sounds > 0)
    if not listing:
        return None
    listed = {path for table in listing.values() for path in _paths_in(table, columns)}
    if listed and len(listed) < num_sounds:
        logger.warning("%s holds %d sound files, and its tables list %d", folder, num_sounds, len(listed))
    by_role: dict[str | None, dict[str, Dataset]] = {}
    for path, table in listing.items():
        by_role.setdefault(role_in(path.stem), {})[path.name] = table
    is_several = any(len(found) > 1 for found in by_role.values())
    has_events = any(
        lists_events(table.features, columns) or (is_several and EVENTS in table.column_names)
        for table in listing.values()
    )
    if (is_several and not has_events) or (None in by_role and len(by_role) > 1):
        raise ValueError(
            f"{folder} holds the tables {[path.name for path in listing]}; expected one, or one per split with train, "
            "validation or test in its name. A split may have several tables of events, such as strong and weak labels"
        )
    splits = {
        role: _join(found, columns) if has_events else next(iter(found.values())) for role, found in by_role.items()
    }
    return DatasetDict({role or "train": split for role, split in splits.items()})


def _find_listing(folder: Path, tables: list[Path], columns: Columns, has_sound: bool) -> dict[Path, Dataset]:
    """The tables of a folder that list sound with labels.

    Raises:
        ValueError: There are tables alone, and none lists any, or one lists some by its header and cannot be read.
    """
    listing, others = {}, {}

    def lists_sound(present: list[str]) -> bool:
        has_paths = _has_any(present, (*AUDIO_COLUMNS, columns.audio))
        return has_paths and _has_any(present, (*LABEL_COLUMNS, columns.label))

    for path in tables:
        try:
            table = read_table(path)
        except ValueError as error:
            # A split would be lost without a word.
            if lists_sound(read_header(path)):
                raise
            others[path.name] = str(error)
            continue
        if is_answer(table.column_names):
            others[path.name] = PREDICTED
        elif lists_sound(table.column_names):
            listing[path] = table
        else:
            others[path.name] = table.column_names
    if others and not listing and not has_sound:
        raise ValueError(
            f"{folder} holds no sound, and tables with the columns {others}; expected one of {AUDIO_COLUMNS} and one "
            f"of {LABEL_COLUMNS}. Pass the table itself, with --audio_column_name and --label_column_name"
        )
    if listing:
        logger.info("Labels come from %s", ", ".join(path.name for path in listing))
    if others:
        # Why, where one cannot be read.
        named = [f"{name} ({problem})" if isinstance(problem, str) else name for name, problem in others.items()]
        logger.warning(
            "%s: tables that list no sound with labels are passed over: %s. --audio_column_name and "
            "--label_column_name name other columns than usual",
            folder, ", ".join(named),
        )  # fmt: skip
    return listing


def _check_audio(name: str, feature: Any) -> None:
    """Refuse a column of what is no sound, like waveforms without a rate."""
    is_text = isinstance(feature, Value) and feature.dtype in ("string", "large_string", "binary", "large_binary")
    is_struct = isinstance(feature, dict) and (
        {"array", "sampling_rate"} <= {*feature} or {"bytes", "path"} & {*feature}
    )
    if not (is_text or is_struct or isinstance(feature, Audio)):
        raise ValueError(
            f"the column {name!r} holds {feature}; expected paths, the bytes of files, or objects with 'array' and "
            "'sampling_rate'. --audio_column_name names another column"
        )


def _load_shards(folder: Path, shards: list[Path]) -> DatasetDict:
    """Parquet files beside sound, of which `load_dataset` would take the more numerous."""
    refuse_other_columns(shards)
    files: dict[str, list[str]] = {}
    for shard in shards:
        files.setdefault(role_in(str(shard.relative_to(folder))) or "train", []).append(str(shard))
    return load_dataset("parquet", data_files=files)


def find_shards(files: Sequence[Path]) -> list[Path]:
    """The parquet files among those of a data set; where there are sound files as well, those that list sound."""
    shards = sorted(path for path in files if path.suffix.lower() == ".parquet" and path.stem != METADATA)
    if shards and any(map(is_sound, files)):
        return [path for path in shards if _has_audio(features_of(path))]
    return shards


def _with_labels(shards: list[Path], label_column: str | None) -> list[Path]:
    """Those of some parquet files beside sound that label it."""

    def has_labels(shard: Path) -> bool:
        features = features_of(shard)
        has_classes = any(isinstance(feature, ClassLabel) for feature in features.values())
        return has_classes or (_has_any(features, (*LABEL_COLUMNS, label_column)) and not is_answer(features))

    labelled = [*filter(has_labels, shards)]
    if others := [shard.name for shard in shards if shard not in labelled]:
        logger.warning("Parquet files without labels or with predicted ones are passed over: %s", ", ".join(others))
    return labelled


def features_of(shard: Path) -> Features:
    """Columns and types of a parquet file."""
    return Features.from_arrow_schema(read_schema(shard))


def _has_audio(features: Features) -> bool:
    return _has_any([*features], AUDIO_COLUMNS) or any(isinstance(feature, Audio) for feature in features.values())


def refuse_other_columns(shards: Sequence[str | Path], schemas: Iterable[pa.Schema] | None = None) -> None:
    """Stop where parquet files of one data set have other columns or classes than the first.

    Raises:
        ValueError: They have; indices would mean other classes there.
    """
    schemas = map(read_schema, shards) if schemas is None else schemas
    features = [Features.from_arrow_schema(schema) for schema in schemas]
    for shard, other in zip(shards, features, strict=True):
        if other != features[0]:
            raise ValueError(f"{shard} has the columns {other}; {shards[0]} has {features[0]}")


def refuse_unread(folder: Path, shards: Sequence[Path]) -> None:
    """Stop where `datasets` would read some of the parquet files below a folder alone: it goes by their names.

    Raises:
        ValueError: It would, and no card in the folder says which files are whose.
    """
    card = folder / "README.md"
    if card.is_file() and DatasetCard.load(card, ignore_metadata_errors=True).data.to_dict().get("configs"):
        return
    files = load_dataset_builder(str(folder)).config.data_files.values()
    read = {Path(file).resolve() for paths in files for file in paths}
    unread = [str(shard.relative_to(folder)) for shard in shards if shard.resolve() not in read]
    if unread:
        raise ValueError(
            f"{folder}: {', '.join(unread)} would not be read, as the names of other parquet files there say which "
            "split they are; expected train, validation or test in each name or in none"
        )


def _has_any(present: Iterable[str], names: Iterable[str | None]) -> bool:
    return not set(present).isdisjoint(names)


def find_column(dataset: Dataset, role: str, wanted: str | None = None) -> str:
    """The column that plays a role: as asked, or by its type, or by its name.

    Args:
        dataset: One split.
        role: "audio" or "label".
        wanted: The column's name, if it is known.

    Raises:
        ValueError: No such column, or one that holds no sound.
    """
    kind, candidates = {"audio": (Audio, AUDIO_COLUMNS), "label": (ClassLabel, LABEL_COLUMNS)}[role]
    typed = [name for name, feature in dataset.features.items() if isinstance(feature, kind)]
    named = [name for name in candidates if name in dataset.column_names]
    if wanted is None and not named and len(typed) > 1:
        raise ValueError(f"the columns {typed} could all be for {role}; name one by --{role}_column_name")
    # A label has many names, and other columns have classes too; what holds sound is known by its type.
    both = [name for name in named if name in typed]
    found = (*named, *typed) if role == "label" else (*both, *typed, *named)
    for name in (wanted,) if wanted is not None else found:
        if name in dataset.column_names:
            if role == "audio":
                _check_audio(name, dataset.features[name])
            return name
    asked = f"no {role} column {wanted!r}" if wanted is not None else f"no {role} column found"
    raise ValueError(f"{asked}; the data has {dataset.column_names}. --{role}_column_name names one")
