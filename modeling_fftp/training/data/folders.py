"""Folders of sound files: a folder per class, below folders per split or not, with a table, or with annotations."""

import logging
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path, PureWindowsPath

from datasets import Dataset, DatasetDict

from modeling_fftp.sound_folders import is_sound, is_visible, walk

from .annotations import has_annotations, read_annotations
from .file_names import as_text, in_one_form
from .messages import name_some
from .splits import role_in, role_of
from .tables import is_table, read_table, read_text

logger = logging.getLogger(__name__)

# The Hub's AudioFolder: a table of this name beside the sound, with a column of this name.
METADATA, FILE_NAME = "metadata", "file_name"
# What Speech Commands has beside its class folders: which clips validate and test, and noise that is no class.
LISTS, BACKGROUND = {"validation": "validation_list.txt", "test": "testing_list.txt"}, "_background_noise_"
# Column of what is wrong with a clip before it is decoded.
PROBLEM = "__problem__"


def load_audio_folder(folder: Path, label_column: str | None = None) -> DatasetDict:
    """Paths and labels of the sound files in a folder.

    Args:
        folder: `CLASS/clip.wav`, with folders in the class folders or not, or that below folders whose names mean
            splits (`train`, `Training`, `val`, `dev`, `test`...), or `CLASS/train/clip.wav`; or sound with a metadata
            table as the Hub's AudioFolder has it, or with annotations, see `read_annotations`. Links are followed;
            hidden files and folders are not looked at.
        label_column: Column of labels in tables of annotations.

    Returns:
        "audio", and "label", events or the columns of the metadata, by the names of the split folders as they are
        written, or by "train".

    Raises:
        ValueError: No sound, or folders of which nobody can tell whether they are classes or splits.
    """
    metadata = _find_metadata(folder)
    if metadata is not None:
        table = _read_metadata(metadata)
        return divide(table, [*map(_folder_with_role, _paths_below(folder, table))])
    splits, roots = {}, _find_split_folders(folder)
    for name, root in roots.items():
        if (table := _find_metadata(root)) is not None:
            splits[name] = _read_metadata(table)
        else:
            splits[name] = read_annotations(root, label_column) or _read_classes(root)
    if [*splits] != ["train"] or table is not None:
        return DatasetDict(splits)
    clips, root = splits["train"], roots["train"]
    if "label" in clips.column_names:
        paths = _paths_below(root, clips)
        return divide(clips, _listed_splits(root, paths) or _splits_in_classes(paths))
    # Annotations may lie beside the folders of splits.
    return divide(clips, [*map(_folder_with_role, _paths_below(folder, clips))])


def _paths_below(folder: Path, clips: Dataset) -> list[str | None]:
    """Paths of clips from a folder on."""
    return [path and os.path.relpath(path, folder.absolute()) for path in clips["audio"]]


def _listed_splits(root: Path, paths: Sequence[str]) -> list[str] | None:
    """The split of each path after the lists of Speech Commands; None where they name none of them."""
    # Kaggle has them beside the folder.
    for folder in (root, root.absolute().parent):
        if lists := {role: folder / name for role, name in LISTS.items() if (folder / name).is_file()}:
            break
    present, splits = {in_one_form(Path(path).as_posix()): path for path in paths}, dict.fromkeys(paths, "train")
    for role, file in lists.items():
        # Written on Windows, they may have its separators.
        lines = [line.strip() for line in read_text(file).splitlines()]
        listed = [in_one_form(PureWindowsPath(line).as_posix()) for line in lines if line]
        splits.update({present[name]: role for name in listed if name in present})
        if missing := [name for name in listed if name not in present]:
            logger.warning("%s names %d clips that are not there: %s", file, len(missing), name_some(missing))
    return None if {*splits.values()} <= {"train"} else [*splits.values()]


def _splits_in_classes(paths: Sequence[str]) -> list[str | None]:
    """The folder of a split between class and clip, where each path has one."""
    names = [_folder_with_role(os.path.join(*Path(path).parts[1:])) for path in paths]
    found = {*names} - {None}
    if found and None in names:
        logger.warning("Folders %s in some classes are not taken for splits", ", ".join(sorted(found)))
        return [None] * len(names)
    return names


def _find_split_folders(folder: Path) -> dict[str, Path]:
    """Folders of splits by their names, or the folder itself.

    A folder with the name of a split is a class where it holds sound alone: ESC-50 has a class "train".
    """
    named, others = [], []
    for child in _visible_folders(folder):
        if role_of(child.name) is not None and _holds_split(child):
            named.append(child)
        elif any(is_sound(path) for path in walk(child)):
            others.append(child)
    if not named:
        return {"train": folder}
    if others:
        raise ValueError(
            f"{folder} holds the folders {_names(named)}, which look like splits with classes in them, beside "
            f"{_names(others)}; expected splits alone or classes alone. Rename some, or pass a table"
        )
    if stray := sum(map(is_sound, folder.iterdir())):
        logger.warning("%s: %d sound files beside the folders of splits are passed over", folder, stray)
    return {child.name: child for child in named}


def _holds_split(folder: Path) -> bool:
    """Whether a folder holds more than the clips of a class."""
    return bool(_visible_folders(folder)) or _find_metadata(folder) is not None or has_annotations(folder)


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_visible(path.name))


def _read_classes(root: Path) -> Dataset:
    """One row per sound file; the folder directly below the root is its class."""
    rows, others, stray, recordings = {"audio": [], "label": [], PROBLEM: []}, [], 0, set()
    for path in sorted(walk(root)):
        *folders, _ = path.relative_to(root).parts
        if not folders:
            stray += is_sound(path)
        elif not is_sound(path):
            others.append(path)
        elif folders[0] != BACKGROUND:
            recordings.add(path.with_suffix(""))
            name, problem = as_text(path.absolute())
            label, _ = as_text(Path(folders[0]))
            for column, value in zip(rows, (name, label, problem), strict=True):
                rows[column].append(value)
    if not rows["audio"]:
        found = dict(Counter(path.suffix for path in walk(root) if not is_sound(path)))
        raise ValueError(
            f"no sound files below {root}: expected {root}/CLASS/clip.wav, in a format that libsndfile reads; found "
            f"{found}, and {stray} sound files without a class folder. Archives are not unpacked, and of annotations "
            "Raven's and Audacity's .txt are read"
        )
    _refuse_splits_as_classes(root, {*rows["label"]})
    if others:
        kinds = dict(Counter(path.suffix for path in others))
        logger.warning("%s: files in no format that libsndfile reads are passed over: %s", root, kinds)
    if named := [path.name for path in others if _is_called_after(path, recordings)]:
        logger.warning(
            "%s: %d files called after recordings, such as %s, are not read; annotations of Raven and Audacity are. "
            "The folders are taken for classes: %s",
            root, len(named), named[0], ", ".join(sorted({*rows["label"]})),
        )  # fmt: skip
    if stray:
        logger.warning("%s: %d sound files that lie in no class folder are passed over", root, stray)
    if inner := _find_inner_folders(recordings, root):
        logger.warning(
            "%s: the classes are the folders directly in it: %s. Folders in these are none: %s; if they are the "
            "classes, pass a table of paths and labels",
            root, name_some(sorted({*rows["label"]})), name_some(inner),
        )  # fmt: skip
    others = [child.name for child in _visible_folders(root) if child.name not in {*rows["label"]}]
    if others:
        logger.warning("%s: folders without clips are no classes: %s", root, ", ".join(others))
    return Dataset.from_dict(rows)


def _find_inner_folders(recordings: Iterable[Path], root: Path) -> list[str]:
    """Names of the folders in class folders, those of splits aside."""
    inner = (path.relative_to(root).parts[1:-1] for path in recordings)
    return sorted({names[0] for names in inner if names and role_of(names[0]) is None})


def _is_called_after(path: Path, recordings: Container[Path]) -> bool:
    """Whether a name is that of a recording, given without suffix, with something behind it: `rec.results.csv`."""
    parts = path.name.split(".")
    return any(path.with_name(".".join(parts[:count])) in recordings for count in range(1, len(parts)) if parts[0])


def _refuse_splits_as_classes(root: Path, labels: set[str]) -> None:
    """Stop where folders divide clips, but by split or fold and not by class."""
    roles = {role_in(label) for label in labels}
    are_folds = all(re.fullmatch(r"fold[-_ ]?\d+", label.lower()) for label in labels)
    if are_folds or (len(roles) > 1 and None not in roles):
        raise ValueError(
            f"{root} holds the folders {', '.join(sorted(labels))}, which look like splits or folds without classes "
            "in them; expected folders of classes in there, or a table of paths and labels"
        )


def _find_metadata(folder: Path) -> Path | None:
    """The metadata table in a folder."""
    tables = sorted(path for path in folder.iterdir() if path.stem == METADATA and is_table(path))
    if len(tables) > 1:
        raise ValueError(f"{folder} holds {_names(tables)}; expected one table of metadata")
    return tables[0] if tables else None


def _read_metadata(path: Path) -> Dataset:
    """The columns of a metadata table, with "audio", paths, in the place of "file_name"."""
    table = read_table(path)
    if FILE_NAME not in table.column_names:
        raise ValueError(f"{path} has the columns {table.column_names}; expected {FILE_NAME!r} among them")
    names = table[FILE_NAME][:]
    if odd := [name for name in names if not isinstance(name, str | None)]:
        raise ValueError(f"{path}: {FILE_NAME!r} is {odd[0]!r}; expected the path of a sound file")
    paths = [None if name is None else str((path.parent / name).absolute()) for name in names]
    listed = {*paths}
    unlisted = sum(is_sound(file) and str(file.absolute()) not in listed for file in walk(path.parent))
    if unlisted:
        logger.warning("%s: %d sound files that it does not list are passed over", path, unlisted)
    return table.remove_columns(FILE_NAME).add_column("audio", paths)


def divide(table: Dataset, names: Sequence[str | None]) -> DatasetDict:
    """The rows by the name of a split that each has, or all as "train" where none has.

    Raises:
        ValueError: Some have one, and others have another name or none.
    """
    found = {name: name is not None and role_of(str(name)) is not None for name in names}
    if not any(found.values()):
        return DatasetDict({"train": table})
    if not all(found.values()):
        others = [name for name, is_role in found.items() if not is_role]
        splits = [name for name in found if name not in others]
        raise ValueError(f"some rows are of the splits {splits}, others of {others}; expected names of splits alone")
    _refuse_lookalikes([*found])
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return DatasetDict({name: table.select(rows) for name, rows in places.items()})


def _refuse_lookalikes(names: Sequence[str]) -> None:
    """Stop on splits that capital letters alone tell apart, or that all train: only one of them would be used."""
    written: dict[str, list[str]] = {}
    for name in names:
        written.setdefault("train" if role_of(str(name)) == "train" else str(name).lower(), []).append(name)
    for alike in written.values():
        if len(alike) > 1:
            raise ValueError(f"some rows are of the split {alike[0]!r}, others of {alike[1]!r}; expected one name")


def _folder_with_role(path: str | None) -> str | None:
    """The first folder in a path that has the name of a split."""
    return next((part for part in Path(path or "").parts[:-1] if role_of(part)), None)
