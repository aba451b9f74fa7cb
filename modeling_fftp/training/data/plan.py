"""What a run reads, before anything is decoded: splits and what each is for, columns, classes and their order."""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, Value
from transformers import TrainingArguments

from modeling_fftp import FFTPConfig
from modeling_fftp.configuration_fftp import MULTI_LABEL
from modeling_fftp.scores_fftp import label_names

from .arguments import SAMPLING_RATE, DataArguments
from .clip_decoder import ClipDecoder
from .event_tables import TIMES, has_event_rows
from .held_out import VALIDATION_FRACTION
from .labels import LabelColumn, is_missing, read_class_names, read_labels
from .messages import name_some
from .parquet_splits import open_splits
from .sources import FOLDER, PATH_TYPES, Columns, add_folders, base_folder, find_column, load_splits, read_names
from .splits import ROLES, find_splits

logger = logging.getLogger(__name__)

# Columns of which people may think that they cut clips out of recordings.
TIME_COLUMN = re.compile(r"(onset|offset|start|begin|end)([ _]*(time|s|sec|seconds|ms|\(s\)))*", re.IGNORECASE)


@dataclass
class DataPlan:
    """What a run reads.

    Args:
        splits: Undecoded splits by role, "train", "validation" and "test", as far as they are needed.
        names: What the data set calls the split of each role.
        decoder: Decodes the clips of the first, see `decoders_of`.
    """

    splits: dict[str, Any]
    names: dict[str, str]
    decoder: ClipDecoder

    @property
    def classes(self) -> list[str]:
        """Names of the classes in their order."""
        return [*self.decoder.labels.values()]


def plan_data(
    arguments: DataArguments,
    training: TrainingArguments,
    config: FFTPConfig | None = None,
    sampling_rate: int = SAMPLING_RATE,
) -> DataPlan:
    """Find what a run reads; the first process does, the others find it in the cache.

    Args:
        arguments: Which data, and what part of it.
        training: Processes, and whether to train.
        config: Config of the checkpoint, where it is evaluated and not trained.
        sampling_rate: Rate in Hz that sound is resampled to.

    Raises:
        ValueError: A missing split or column, or an unknown class.
    """
    needed = ["train"] if training.do_train else ["validation", "test", "train"]
    with training.main_process_first(desc="data"):
        splits, names = find_roles(arguments, needed, open_splits if arguments.streaming else load_splits)
    decoder = build_decoder(arguments, next(iter(splits.values())), config, sampling_rate)
    return DataPlan({role: splits[role] for role in roles_to_read(splits, arguments, training)}, names, decoder)


def find_roles(
    arguments: DataArguments, needed: Sequence[str], load: Callable[..., Mapping]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Splits of the data set, and their names there, by what they are for.

    Args:
        arguments: Which data, and names of splits.
        needed: Roles of which one must be there; the first that is comes first.
        load: Loads all splits by their names, with the arguments of `load_splits`.

    Raises:
        ValueError: No split has one of the roles.
    """
    source = (arguments.dataset_name, arguments.dataset_config_name)
    columns = Columns(arguments.label_column_name, arguments.audio_column_name)
    splits = load(*source, arguments.dataset_data_dir, arguments.dataset_revision, columns)
    wanted = {role: getattr(arguments, f"{role}_split_name") for role in ROLES}
    names = find_splits(splits, wanted)
    group = arguments.validation_column
    if group and {"train", "validation"} <= names.keys():
        logger.warning("The split %r is not used: a group of %r validates", names.pop("validation"), group)
    first = next((role for role in needed if role in names), None)
    if first is None:
        expected = " or ".join(wanted[role] for role in needed)
        raise ValueError(f"no split {expected} in {arguments.dataset_name}; it has {[*splits]}")
    if group and "train" not in names:
        raise ValueError(f"--validation_column {group} divides the clips to train on; the data has {[*splits]}")
    if group == FOLDER:
        train = splits[names["train"]]
        column = find_column(train, "audio", arguments.audio_column_name)
        splits[names["train"]] = add_folders(train, column, arguments.validation_value)
    if group and group not in splits[names["train"]].column_names:
        raise ValueError(f"no column {group!r} to validate by; the data has {splits[names['train']].column_names}")
    trains = needed[0] == "train"
    if first == "train" and not trains and not group and arguments.validation_fraction is None:
        logger.warning(
            "No split %r or %r: all of %r is measured. If the model learned from a part of it, --validation_fraction "
            "%g measures the share that a training with this seed kept out",
            wanted["validation"], wanted["test"], names["train"], VALIDATION_FRACTION,
        )  # fmt: skip
        return {"test": splits[names["train"]]}, {"test": names["train"]}
    return {role: splits[names[role]] for role in dict.fromkeys((first, *names))}, names


def roles_to_read(splits: Mapping[str, Any], arguments: DataArguments, training: TrainingArguments) -> list[str]:
    """The roles whose clips a run needs: an evaluation leaves the training split alone, if it can."""
    holds_out = arguments.validation_column or (
        arguments.validation_fraction is not None and "validation" not in splits
    )
    needs_train = training.do_train or holds_out or len(splits) == 1
    return [role for role in splits if role != "train" or needs_train]


def build_decoder(
    arguments: DataArguments, split: Dataset, config: FFTPConfig | None = None, sampling_rate: int = SAMPLING_RATE
) -> ClipDecoder:
    """Build a decoder by what a split says about columns and classes.

    Args:
        arguments: What they say overrides that.
        split: The training clips, where there are any.
        config: Config of a checkpoint that is evaluated: its classes count, not those that the clips happen to have.
        sampling_rate: Rate in Hz that sound is resampled to.

    Raises:
        FileNotFoundError: There is no file of names.
        ValueError: A missing column, an unknown class, or names of classes that are not those of the checkpoint.
    """
    audio_column = find_column(split, "audio", arguments.audio_column_name)
    label_column = find_column(split, "label", arguments.label_column_name)
    names = {}
    if arguments.class_names_file:
        path = Path(arguments.class_names_file)
        if not path.exists():
            raise FileNotFoundError(f"--class_names_file {path}: no such file; paths begin in the working directory")
        names = read_class_names(path)
    logger.info("Sound is in the column %r, labels in %r", audio_column, label_column)
    kind = read_labels(split, label_column, arguments.label_separator, [*names])
    refuse_misread(split, audio_column, label_column, kind, arguments)
    labels, is_multi_label = choose_classes(kind, names, arguments, config)
    return ClipDecoder(
        audio_column,
        label_column,
        kind,
        labels,
        sampling_rate,
        is_multi_label=is_multi_label,
        excluded=arguments.exclude_labels,
        none_labels=arguments.none_labels,
        keeps_events=arguments.task == "frames",
        folder=base_folder(arguments.dataset_name, arguments.dataset_data_dir),
    )


def refuse_misread(
    split: Dataset, audio_column: str, label_column: str, kind: LabelColumn, arguments: DataArguments
) -> None:
    """Stop on rows that are not what the arguments take them for, and name columns that people may think are read.

    Raises:
        ValueError: A row for each event where that is a clip, or labels without times where these are learned.
    """
    has_event_per_row = has_event_rows(split.column_names, arguments.label_column_name)
    if has_event_per_row and isinstance(split.features[audio_column], Value):
        raise ValueError("the data has a row for each event, which --streaming does not put together; drop it")
    times = [name for name in split.column_names if TIME_COLUMN.fullmatch(name)]
    if times and not kind.has_events:
        logger.warning(
            "The columns %s are not read: each row is a whole clip. A row of an event has %r and %r, and a label",
            times,
            *TIMES,
        )
    if arguments.task == "frames" and not kind.has_events:
        raise ValueError(
            f"the labels in {label_column!r} have no times; --task frames learns from events, a list of onset, offset "
            "and label for each clip, or a table with a row for each, whose times are called 'onset' and 'offset'"
        )


def refuse_contradicting_rows(paths: Sequence[str | None], labels: Sequence[Any]) -> None:
    """Stop on a path that has several rows with different labels, of which one clip could have one alone.

    Rows with the same label are named in the log.

    Raises:
        ValueError: There is one.
    """
    said: dict[str, Any] = {}
    repeated: dict[str, None] = {}
    for path, label in zip(paths, labels, strict=True):
        if path is None or is_missing(label):
            continue
        path = os.path.normpath(path)
        if path not in said:
            said[path] = label
            continue
        repeated[path] = None
        if said[path] != label:
            raise ValueError(
                f"{path} has rows with the labels {said[path]!r} and {label!r}, and a row is a whole clip; expected "
                "one row, its labels joined by what --label_separator names, or events with 'onset' and 'offset'"
            )
    if repeated:
        logger.warning(
            "%d clips have several rows, and each is heard as a whole: %s", len(repeated), name_some(repeated)
        )


def choose_classes(
    kind: LabelColumn, names: dict[str, str], arguments: DataArguments, config: FFTPConfig | None = None
) -> tuple[dict[str, str], bool]:
    """Names of the classes in their order, by what stands for them in the data, and whether a clip can have several.

    Args:
        kind: How the data writes labels.
        names: Names from a file, if there is one.
        arguments: Which labels stand for none, or are left out.
        config: Config of a checkpoint that is evaluated, whose classes count.

    Raises:
        ValueError: An unknown class, one alone, or such as the checkpoint does not tell apart.
    """
    names = names or {label: label for label in kind.classes}
    for option, given in (("exclude_labels", arguments.exclude_labels), ("none_labels", arguments.none_labels)):
        if unknown := [label for label in given if label and label not in names]:
            raise ValueError(f"--{option} {unknown[0]!r} is not among the classes {[*names]}")
    labels = {label: name for label, name in names.items() if label not in arguments.none_labels}
    # A clip with none is no case of one class per clip.
    is_multi_label = kind.is_multi_label or bool(arguments.none_labels)
    if config is None:
        labels = {label: name for label, name in labels.items() if label not in arguments.exclude_labels}
    else:
        # The checkpoint knows an excluded class, whose clips an evaluation drops, or need not know anything of it.
        known = label_names(config)
        labels = {
            label: name for label, name in labels.items() if name in known or label not in arguments.exclude_labels
        }
        labels, is_multi_label = checkpoint_classes(labels, config, is_multi_label)
    if len(labels) < 2 and not is_multi_label:
        raise ValueError(
            f"all clips have one class, {[*labels]}; expected two classes, labels in another column, or a folder in "
            "there, which --dataset_data_dir names"
        )
    return labels, is_multi_label


def checkpoint_classes(names: dict[str, str], config: FFTPConfig, is_multi_label: bool) -> tuple[dict[str, str], bool]:
    """Classes of a checkpoint in its order, by what stands for them in the data, and whether a clip can have several.

    Raises:
        ValueError: The data has a class that the checkpoint does not know, or several per clip where it gives one.
    """
    known = label_names(config)
    unknown = [name for name in names.values() if name not in known]
    if unknown:
        raise ValueError(f"the data has the class {unknown[0]!r}; the checkpoint tells apart {known}")
    expects_several = config.problem_type == MULTI_LABEL
    if is_multi_label and not expects_several:
        raise ValueError(f"a clip of the data can have several classes; the checkpoint is for {config.problem_type}")
    written = {name: label for label, name in names.items()}
    return {written.get(name, name): name for name in known}, expects_several


def decoders_of(splits: Mapping[str, Any], decoder: ClipDecoder) -> dict[str, ClipDecoder]:
    """The decoder as each split needs it: its indices are those of its own names of the classes.

    A test split without labels is left out, and named in the log.

    Args:
        splits: Splits by role.
        decoder: Decoder of the first of them.

    Raises:
        ValueError: A split lacks a column, has several labels per clip where the first has one, or rows of one clip
            that contradict each other.
    """
    decoders, first = {}, next(iter(splits))
    for role, split in splits.items():
        missing = [name for name in (decoder.audio_column, decoder.label_column) if name not in split.column_names]
        if missing and role == "test":
            logger.warning("The test split has no column %r and is not used", missing[0])
            continue
        if missing:
            raise ValueError(f"the {role} split has no column {missing[0]!r}; it has {split.column_names}")
        if role == "test" and all(map(is_missing, split[decoder.label_column])):
            logger.warning("The test split has no labels and is not used")
            continue
        kind = decoder.label_kind
        if role != first and not kind.is_vector:
            kind = read_labels(split, decoder.label_column, kind.separator)
        if kind.is_multi_label != decoder.label_kind.is_multi_label:
            several, one = (role, "another") if kind.is_multi_label else ("another", role)
            raise ValueError(f"the {several} split has lists of labels, {one} split has one per clip")
        if decoder.keeps_events and not kind.has_events:
            raise ValueError(f"the labels of the {role} split have no times; --task frames needs them in all splits")
        if split.features[decoder.audio_column] in PATH_TYPES:
            refuse_contradicting_rows(split[decoder.audio_column][:], read_names(split, decoder.label_column))
        decoders[role] = replace(decoder, label_kind=kind)
    return decoders
