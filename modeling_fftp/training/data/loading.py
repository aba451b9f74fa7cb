"""The clips of a run: loaded, decoded, split, and described for the card."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Value, concatenate_datasets
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HfHubHTTPError
from transformers import TrainingArguments

from modeling_fftp import FFTPConfig
from modeling_fftp.scores_fftp import label_names

from .arguments import DataArguments
from .clips import (
    FACTS,
    SAMPLING_RATE,
    SOURCE,
    ClipDecoder,
    announce_cache,
    clip_lengths,
    decode_dataset,
    report_left_out,
)
from .event_tables import has_event_rows
from .held_out import hold_out_fraction, hold_out_group
from .labels import read_class_names, read_labels
from .report import SplitFacts, find_split_facts, render_report
from .sources import base_folder, find_column, is_local, load_splits, public_name
from .splits import ROLES, find_splits
from .strong_labels import EVENTS, keep_measurable, split_measurable

logger = logging.getLogger(__name__)

# Columns of which people may think that they cut clips out of recordings.
TIME_COLUMNS = ("onset", "offset", "start", "end", "start_time", "end_time", "begin time (s)", "end time (s)")
# Share of the clips to train on that validate where there is no split for that.
VALIDATION_FRACTION = 0.1
# The file that says what the clips are like, and how many classes the log counts.
REPORT, LOGGED_CLASSES = "data_report.md", 20


@dataclass
class Clips:
    """The clips that a run trains and is measured on.

    Args:
        splits: Decoded clips by role, "train", "validation" and "test", as far as there are any.
        classes: Names of the classes in their order.
        is_multi_label: Whether a clip can have several.
        left_out: Clips of each role that cannot be used.
        lengths: Samples of every clip, by role; of streamed clips, of some.
        sample: Clips that stand for those to train on, where those are many.
        is_framewise: Whether "labels" are events, and a model is to say when they are.
        sampling_rate: Rate of the sound in Hz.
    """

    splits: dict[str, Dataset]
    classes: list[str]
    is_multi_label: bool
    left_out: dict[str, int]
    lengths: dict[str, list[int]]
    sample: Iterable[dict] | None = None
    is_framewise: bool = False
    sampling_rate: int = SAMPLING_RATE

    @property
    def longest_seconds(self) -> float:
        """Length of the longest clip to train on, or else to evaluate on."""
        role = next(role for role in ROLES if role in self.lengths)
        return max(self.lengths[role]) / self.sampling_rate

    @property
    def problem_type(self) -> str:
        """As in the model's config."""
        return "multi_label_classification" if self.is_multi_label else "single_label_classification"

    @property
    def metric(self) -> str:
        """The result of `audio_tagging` that checkpoints are chosen by."""
        return "map" if self.is_multi_label else "accuracy"


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
        ValueError: A missing column, an unknown class, or names of classes that are not those of the checkpoint.
    """
    audio_column = find_column(split, "audio", arguments.audio_column_name)
    label_column = find_column(split, "label", arguments.label_column_name)
    names = read_class_names(Path(arguments.class_names_file)) if arguments.class_names_file else {}
    logger.info("Sound is in the column %r, labels in %r", audio_column, label_column)
    kind = read_labels(split, label_column, arguments.label_separator, [*names])
    if has_event_rows(split.column_names) and isinstance(split.features[audio_column], Value):
        raise ValueError("the data has a row for each event, which --streaming does not put together; drop it")
    times = [name for name in split.column_names if name.lower() in TIME_COLUMNS]
    if times and not kind.has_events:
        logger.warning("The columns %s are not read: each row is a whole clip", times)
    names = names or {label: label for label in kind.classes}
    for option, given in (("exclude_labels", arguments.exclude_labels), ("none_labels", arguments.none_labels)):
        if unknown := [label for label in given if label and label not in names]:
            raise ValueError(f"--{option} {unknown[0]!r} is not among the classes {[*names]}")
    names = {label: name for label, name in names.items() if label not in arguments.none_labels}
    if arguments.task == "frames" and not kind.has_events:
        raise ValueError(
            f"the labels in {label_column!r} have no times; --task frames learns from events, a list of onset, offset "
            "and label for each clip, or a table with a row for each"
        )
    # A clip with none is no case of one class per clip.
    is_multi_label = kind.is_multi_label or bool(arguments.none_labels)
    if config is not None:
        known = label_names(config)
        # Of an excluded class the checkpoint need not know anything.
        names = {
            label: name for label, name in names.items() if name in known or label not in arguments.exclude_labels
        }
        names, is_multi_label = checkpoint_classes(names, config, is_multi_label)
    # An evaluation drops the clips of an excluded class, but the checkpoint still knows it.
    labels = {label: name for label, name in names.items() if config or label not in arguments.exclude_labels}
    if len(labels) < 2 and not is_multi_label:
        raise ValueError(f"all clips have one class, {[*labels]}; expected two classes, or labels in another column")
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


def checkpoint_classes(names: dict[str, str], config: FFTPConfig, is_multi_label: bool) -> tuple[dict[str, str], bool]:
    """Classes of a checkpoint in its order, by what stands for them in the data, and whether a clip can have several.

    Raises:
        ValueError: The data has a class that the checkpoint does not know, or several per clip where it gives one.
    """
    known = label_names(config)
    unknown = [name for name in names.values() if name not in known]
    if unknown:
        raise ValueError(f"the data has the class {unknown[0]!r}; the checkpoint tells apart {known}")
    expects_several = config.problem_type == "multi_label_classification"
    if is_multi_label and not expects_several:
        raise ValueError(f"a clip of the data can have several classes; the checkpoint is for {config.problem_type}")
    written = {name: label for label, name in names.items()}
    return {written.get(name, name): name for name in known}, expects_several


def load_clips(
    arguments: DataArguments,
    training: TrainingArguments,
    config: FFTPConfig | None = None,
    check_classes: Callable[[Sequence[str]], None] = lambda classes: None,
    sampling_rate: int = SAMPLING_RATE,
) -> Clips:
    """Load and decode every split; the first process decodes, the others find it in the cache.

    Args:
        arguments: Which data, and what part of it.
        training: Seed and processes, and whether to train.
        config: Config of the checkpoint, where it is evaluated and not trained.
        check_classes: Refuses the names of the classes, where they cannot be learned, before anything is decoded.
        sampling_rate: Rate in Hz that sound is resampled to.

    Raises:
        ValueError: A missing split or column, an unknown class, or more unusable clips than `--max_left_out`.
    """
    with training.main_process_first(desc="decoding"):
        splits = find_roles(arguments, ["train"] if training.do_train else ["validation", "test", "train"])
        decoder = build_decoder(arguments, next(iter(splits.values())), config, sampling_rate)
        check_classes([*decoder.labels.values()])
        clips, left_out = decode_splits(splits, decoder, arguments, training)
        clips = hold_out(clips, arguments, training.seed)
        if arguments.max_train_samples and "train" in clips:
            shuffled = clips["train"].shuffle(seed=training.seed)
            clips["train"] = shuffled.select(range(min(arguments.max_train_samples, len(shuffled))))
        if arguments.task == "frames":
            clips = {role: split if role == "train" else keep_measurable(split, role) for role, split in clips.items()}
        classes = [*decoder.labels.values()]
        facts = {name: find_split_facts(split, classes, left_out.get(name, [])) for name, split in clips.items()}
        report(facts, arguments.dataset_name, training, sampling_rate)
        refuse_unusable(facts, decoder.is_multi_label)
    clips = {role: split.remove_columns([SOURCE, FACTS]) for role, split in clips.items()}
    if is_framewise := arguments.task == "frames":
        clips = {role: split.remove_columns("labels").rename_column(EVENTS, "labels") for role, split in clips.items()}
    lengths = {role: clip_lengths(split) for role, split in clips.items()}
    counts = {role: len(split) for role, split in left_out.items() if split}
    return Clips(clips, classes, decoder.is_multi_label, counts, lengths, None, is_framewise, decoder.sampling_rate)


def find_roles(
    arguments: DataArguments, needed: Sequence[str], load: Callable[..., Mapping] = load_splits
) -> dict[str, Any]:
    """Splits of the data set by what they are for.

    Args:
        arguments: Which data, and names of splits.
        needed: Roles of which one must be there; the first that is comes first.
        load: Loads all splits by their names, with the arguments of `load_splits`.

    Raises:
        ValueError: None of them is there.
    """
    source = (arguments.dataset_name, arguments.dataset_config_name)
    splits = load(*source, arguments.dataset_data_dir, arguments.dataset_revision)
    wanted = {role: getattr(arguments, f"{role}_split_name") for role in ROLES}
    names = find_splits(splits, wanted)
    group = arguments.validation_column
    if group and {"train", "validation"} <= names.keys():
        logger.warning("The split %r is not used: a group of %r validates", names.pop("validation"), group)
    first = next((role for role in needed if role in names), None)
    if first is None:
        expected = " or ".join(wanted[role] for role in needed)
        raise ValueError(f"no split {expected} in {arguments.dataset_name}; it has {[*splits]}")
    if group and "train" in names and group not in splits[names["train"]].column_names:
        raise ValueError(f"no column {group!r} to validate by; the data has {splits[names['train']].column_names}")
    trains = needed[0] == "train"
    if first == "train" and not trains and not group and arguments.validation_fraction is None:
        logger.warning(
            "No split %r or %r: all of %r is measured. If the model learned from a part of it, --validation_fraction "
            "%g measures the share that a training with this seed kept out",
            wanted["validation"], wanted["test"], names["train"], VALIDATION_FRACTION,
        )  # fmt: skip
        return {"test": splits[names["train"]]}
    return {role: splits[names[role]] for role in dict.fromkeys((first, *names))}


def decoders_of(splits: Mapping[str, Any], decoder: ClipDecoder) -> dict[str, ClipDecoder]:
    """The decoder as each split needs it: its indices are those of its own names of the classes.

    A test split without labels is left out, and named in the log.

    Args:
        splits: Splits by role.
        decoder: Decoder of the first of them.

    Raises:
        ValueError: A split lacks a column, or has several labels per clip where the first has one.
    """
    decoders, first = {}, next(iter(splits))
    for role, split in splits.items():
        missing = [name for name in (decoder.audio_column, decoder.label_column) if name not in split.column_names]
        if missing and role == "test":
            logger.warning("The test split has no column %r and is not used", missing[0])
            continue
        if missing:
            raise ValueError(f"the {role} split has no column {missing[0]!r}; it has {split.column_names}")
        kind = decoder.label_kind
        if role != first and not kind.is_vector:
            kind = read_labels(split, decoder.label_column, kind.separator)
        if kind.is_multi_label != decoder.label_kind.is_multi_label:
            several, one = (role, "another") if kind.is_multi_label else ("another", role)
            raise ValueError(f"the {several} split has lists of labels, {one} split has one per clip")
        decoders[role] = replace(decoder, label_kind=kind)
    return decoders


def roles_to_read(splits: Mapping[str, Any], arguments: DataArguments, training: TrainingArguments) -> list[str]:
    """The roles whose clips a run needs: an evaluation leaves the training split alone, if it can."""
    needs_train = training.do_train or arguments.validation_column or len(splits) == 1
    return [role for role in splits if role != "train" or needs_train]


def decode_splits(
    splits: dict[str, Dataset], decoder: ClipDecoder, arguments: DataArguments, training: TrainingArguments
) -> tuple[dict[str, Dataset], dict[str, list[dict]]]:
    """Clips by role, and what cannot be used of each."""
    group = arguments.validation_column
    splits = {role: splits[role] for role in roles_to_read(splits, arguments, training)}
    decoders = decoders_of(splits, decoder)
    announce_cache(splits, decoder)
    clips, left_out = {}, {}
    for role, own_decoder in decoders.items():
        columns = [group] if group and role == "train" else []
        decoded, left_out[role] = decode_dataset(
            splits[role], own_decoder, keep_columns=columns, num_proc=arguments.num_proc
        )
        clips[role] = decoded.with_format("numpy")
    shares = {role: len(left_out[role]) / max(1, len(split) + len(left_out[role])) for role, split in clips.items()}
    report_left_out(left_out, shares, arguments.max_left_out, Path(training.output_dir, "left_out_clips.csv"))
    return clips, left_out


def report(facts: dict[str, SplitFacts], source: str, training: TrainingArguments, sampling_rate: int) -> None:
    """Say in the log and in a file what the clips are like; the first process does."""
    if training.process_index == 0:
        logger.info("\n%s", render_report(facts, Path(source).name, LOGGED_CLASSES))
        path = Path(training.output_dir, REPORT)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_report(facts, Path(source).name), encoding="utf-8")
        highest = max((rate for split in facts.values() for rate in split.values("rate")), default=0)
        if highest > sampling_rate:
            logger.info(
                "Sound of up to %d Hz is resampled to %d Hz: what is above %d Hz is lost; --sampling_rate keeps more",
                highest,
                sampling_rate,
                sampling_rate // 2,
            )


def refuse_unusable(facts: dict[str, SplitFacts], is_multi_label: bool) -> None:
    """Stop on what would end a training after its first epoch, or make its results mean nothing.

    Raises:
        ValueError: A split without a clip, without sound, or in which no clip has a label.
    """
    for role, split in facts.items():
        if not split.clips:
            raise ValueError(f"{role}: no clips are left; {len(split.left_out)} cannot be used")
        if len(split.silent) == len(split.clips):
            raise ValueError(f"{role}: all {len(split.clips)} clips are silent")
        if is_multi_label and not any(split.counts.values()):
            raise ValueError(f"{role}: none of its {len(split.clips)} clips has a label; no score can be computed")


def hold_out(clips: dict[str, Dataset], arguments: DataArguments, seed: int) -> dict[str, Dataset]:
    """The clips with some to validate on: those of their split, of the group that was asked for, or a share."""
    if arguments.validation_column:
        train, validation = hold_out_group(clips["train"], arguments.validation_column, arguments.validation_value)
    elif "validation" in clips or "train" not in clips:
        return clips
    else:
        drawable, others = split_measurable(clips["train"]) if arguments.task == "frames" else (clips["train"], None)
        fraction = arguments.validation_fraction or VALIDATION_FRACTION
        train, validation = hold_out_fraction(drawable, fraction, seed)
        # What has no times trains, whatever is drawn.
        train = concatenate_datasets([train, others]) if others else train
        logger.warning(
            "No split %r: %d of %d clips, drawn with seed %d, validate. Clips of one speaker or recording may be on "
            "both sides; --validation_column keeps groups together.",
            arguments.validation_split_name,
            len(validation),
            len(validation) + len(train),
            seed,
        )
    return clips | {"train": train, "validation": validation}


def find_hours(lengths: Sequence[int], count: int, sampling_rate: int) -> float | None:
    """Length of all clips; None where that of some is known."""
    return sum(lengths) / sampling_rate / 3600 if len(lengths) == count else None


def describe_data(source: str, clips: Clips) -> dict:
    """What the card says about the data.

    Args:
        source: Hub id, folder or file.
        clips: Made of it.
    """
    card, license = Path(source, "README.md").expanduser(), None
    if card.exists() or not is_local(source):
        try:
            license = DatasetCard.load(card if is_local(source) else source).data.license
            license = ", ".join(license) if isinstance(license, list) else license
        except (OSError, ValueError, yaml.YAMLError, HfHubHTTPError) as error:
            logger.info("The licence of the data is not known: %s", error)
    return {
        "dataset": public_name(source),
        "hub_id": None if is_local(source) else source,
        "license": license,
        "splits": {
            role: {"clips": len(split), "hours": find_hours(clips.lengths[role], len(split), clips.sampling_rate)}
            for role, split in clips.splits.items()
        },
        "left_out": clips.left_out,
    }
