"""The clips of a run: loaded, decoded, split, and described for the card."""

import logging
from dataclasses import dataclass
from pathlib import Path

import yaml
from datasets import ClassLabel, Dataset, DatasetDict, List
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HfHubHTTPError

from modeling_fftp import FFTPConfig

from .arguments import DataArguments, FFTPTrainingArguments
from .clips import ClipDecoder, clip_lengths, decode_dataset, report_left_out
from .held_out import hold_out_fraction, hold_out_group
from .sources import SPLIT_NAMES, class_names, find_column, load_splits, read_class_names

logger = logging.getLogger(__name__)

SAMPLING_RATE = 16000
# Longest training clip unless --max_seconds says otherwise.
MAX_SECONDS = 10.0


@dataclass
class Clips:
    """What a run trains and is measured on.

    Args:
        splits: Decoded clips by role, "train", "validation" and "test", as far as there are any.
        classes: Names of the classes in their order.
        is_multi_label: Whether a clip can have several.
        left_out: How many clips of each role cannot be used.
        lengths: Samples of every clip, by role.
    """

    splits: dict[str, Dataset]
    classes: list[str]
    is_multi_label: bool
    left_out: dict[str, int]
    lengths: dict[str, list[int]]

    @property
    def longest_seconds(self) -> float:
        """Length of the longest clip to train on, or else to evaluate on."""
        role = next(role for role in SPLIT_NAMES if role in self.lengths)
        return max(self.lengths[role]) / SAMPLING_RATE

    @property
    def problem_type(self) -> str:
        """As in the model's config."""
        return "multi_label_classification" if self.is_multi_label else "single_label_classification"

    @property
    def metric(self) -> str:
        """The result of `audio_tagging` that checkpoints are chosen by."""
        return "map" if self.is_multi_label else "accuracy"


def build_decoder(arguments: DataArguments, split: Dataset, config: FFTPConfig | None = None) -> ClipDecoder:
    """What a split says about columns and classes.

    Args:
        arguments: What they say overrides that.
        split: Of the training clips, where there are any.
        config: Of a checkpoint that is evaluated: its classes count, not those that the clips happen to have.

    Raises:
        ValueError: A missing column, an unknown class, or names of classes that are not those of the checkpoint.
    """
    audio_column = find_column(split, "audio", arguments.audio_column_name)
    label_column = find_column(split, "label", arguments.label_column_name)
    labels, is_multi_label = class_names(split, label_column, arguments.label_separator)
    names = {label: label for label in labels}
    if arguments.class_names_file:
        names = read_class_names(Path(arguments.class_names_file))
    if config is not None:
        names, is_multi_label = checkpoint_classes(names, config, is_multi_label)
    unknown = [label for label in arguments.exclude_labels if label not in names]
    if unknown:
        raise ValueError(f"--exclude_labels {unknown[0]!r} is not among the classes {[*names]}")
    feature = split.features[label_column]
    feature = feature.feature if isinstance(feature, List) else feature
    return ClipDecoder(
        audio_column,
        label_column,
        # An evaluation drops the clips of an excluded class, but the checkpoint still knows it.
        {label: name for label, name in names.items() if config or label not in arguments.exclude_labels},
        SAMPLING_RATE,
        index_names=feature.names if isinstance(feature, ClassLabel) else None,
        is_multi_label=is_multi_label,
        separator=arguments.label_separator,
        excluded=arguments.exclude_labels,
        folder=Path(arguments.dataset_name).parent,
    )


def checkpoint_classes(names: dict[str, str], config: FFTPConfig, is_multi_label: bool) -> tuple[dict[str, str], bool]:
    """Classes of a checkpoint in its order, by what stands for them in the data, and whether a clip can have several.

    Raises:
        ValueError: The data has a class that the checkpoint does not know, or several per clip where it gives one.
    """
    known = [config.id2label[index] for index in range(config.num_labels)]
    unknown = [name for name in names.values() if name not in known]
    if unknown:
        raise ValueError(f"the data has the class {unknown[0]!r}; the checkpoint tells apart {known}")
    expects_several = config.problem_type == "multi_label_classification"
    if is_multi_label and not expects_several:
        raise ValueError(f"a clip of the data can have several classes; the checkpoint is for {config.problem_type}")
    written = {name: label for label, name in names.items()}
    return {written.get(name, name): name for name in known}, expects_several


def load_clips(arguments: DataArguments, training: FFTPTrainingArguments, config: FFTPConfig | None = None) -> Clips:
    """Load and decode every split; the first process decodes, the others find it in the cache.

    Args:
        arguments: Which data, and what of it.
        training: Seed and processes, and whether to train.
        config: Of the checkpoint, where it is evaluated and not trained.

    Raises:
        ValueError: A missing split or column, an unknown class, or more unusable clips than `--max_left_out`.
    """
    source = (arguments.dataset_name, arguments.dataset_config_name)
    with training.main_process_first(desc="decoding"):
        splits = load_splits(*source, arguments.dataset_data_dir, arguments.dataset_revision)
        names = [arguments.train_split_name]
        if not training.do_train:
            names = [arguments.validation_split_name, arguments.test_split_name, *names]
        present = [name for name in names if name in splits]
        if not present:
            raise ValueError(f"no split {' or '.join(names)} in {arguments.dataset_name}; it has {[*splits]}")
        decoder = build_decoder(arguments, splits[present[0]], config)
        clips, left_out = decode_splits(splits, decoder, arguments, training)
        clips = hold_out(clips, arguments, training.seed)
        if arguments.max_train_samples and "train" in clips:
            shuffled = clips["train"].shuffle(seed=training.seed)
            clips["train"] = shuffled.select(range(min(arguments.max_train_samples, len(shuffled))))
    lengths = {role: clip_lengths(split) for role, split in clips.items()}
    return Clips(clips, [*decoder.labels.values()], decoder.is_multi_label, left_out, lengths)


def decode_splits(
    splits: DatasetDict, decoder: ClipDecoder, arguments: DataArguments, training: FFTPTrainingArguments
) -> tuple[dict[str, Dataset], dict[str, int]]:
    """Clips by role, and how many of each cannot be used; an evaluation leaves the training split alone."""
    roles = {"train": "train_split_name", "validation": "validation_split_name", "test": "test_split_name"}
    names = {role: getattr(arguments, field_name) for role, field_name in roles.items()}
    group = arguments.validation_column
    if not training.do_train and not group and not splits.keys().isdisjoint((names["validation"], names["test"])):
        del names["train"]
    clips, left_out = {}, {}
    for role, name in names.items():
        if name in splits:
            columns = [group] if group and role == "train" else []
            decoded, left_out[name] = decode_dataset(
                splits[name], decoder, keep_columns=columns, num_proc=arguments.num_proc
            )
            clips[role] = decoded.with_format("numpy")
    sizes = {names[role]: len(split) for role, split in clips.items()}
    report_left_out(left_out, sizes, arguments.max_left_out, Path(training.output_dir, "left_out_clips.csv"))
    return clips, {role: len(left_out[name]) for role, name in names.items() if left_out.get(name)}


def hold_out(clips: dict[str, Dataset], arguments: DataArguments, seed: int) -> dict[str, Dataset]:
    """The clips with some to validate on: those of their split, of the group that was asked for, or a share."""
    if arguments.validation_column:
        train, validation = hold_out_group(clips["train"], arguments.validation_column, arguments.validation_value)
    elif "validation" in clips or "train" not in clips:
        return clips
    else:
        train, validation = hold_out_fraction(clips["train"], arguments.validation_fraction, seed)
        logger.warning(
            "No split %r: %d of %d clips, drawn with seed %d, validate. Clips of one speaker or recording may be on "
            "both sides; --validation_column keeps groups together.",
            arguments.validation_split_name,
            len(validation),
            len(validation) + len(train),
            seed,
        )
    return clips | {"train": train, "validation": validation}


def describe_data(source: str, clips: Clips) -> dict:
    """What the card says about the data.

    Args:
        source: Hub id, folder or file.
        clips: Made of it.
    """
    is_local, card, license = Path(source).exists(), Path(source, "README.md"), None
    if card.exists() or not is_local:
        try:
            license = DatasetCard.load(card if is_local else source).data.license
            license = ", ".join(license) if isinstance(license, list) else license
        except (OSError, ValueError, yaml.YAMLError, HfHubHTTPError) as error:
            logger.info("The licence of the data is not known: %s", error)
    return {
        "dataset": Path(source).resolve().name if is_local else source,
        "hub_id": None if is_local else source,
        "license": license,
        "splits": {
            role: {"clips": len(samples), "hours": sum(samples) / SAMPLING_RATE / 3600}
            for role, samples in clips.lengths.items()
        },
        "left_out": clips.left_out,
    }
