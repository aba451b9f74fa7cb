"""The clips of a run: loaded, decoded, split, and described for the card."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml
from datasets import Dataset
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HfHubHTTPError
from transformers import TrainingArguments

from modeling_fftp import FFTPConfig
from modeling_fftp.configuration_fftp import MULTI_LABEL, SINGLE_LABEL
from modeling_fftp.hub.metrics import task_metric

from .arguments import DataArguments
from .clips import (
    FACTS,
    SAMPLING_RATE,
    SOURCE,
    ClipDecoder,
    FeatureClips,
    announce_cache,
    clip_lengths,
    decode_dataset,
    report_left_out,
)
from .decoders import build_decoder, decoders_of, find_roles, roles_to_read
from .held_out import hold_out
from .recording_pieces import CROPS, RecordingPieces
from .report import find_split_facts, refuse_unusable, write_report
from .sources import is_local, public_name
from .splits import ROLES
from .strong_labels import EVENTS, keep_measurable

logger = logging.getLogger(__name__)

# Of clips that are longer than a crop by less, a crop has almost all.
MUCH_LONGER = 1.1


@dataclass
class Clips:
    """The clips that a run trains and is measured on.

    Args:
        splits: Decoded clips by role, "train", "validation" and "test", as far as there are any; or what was made of
            them, their features or pieces.
        classes: Names of the classes in their order.
        is_multi_label: Whether a clip can have several.
        left_out: Number of clips of each role that cannot be used.
        lengths: Samples of every clip, by role, also where it is in pieces; of streamed clips, of some.
        sample: Clips that stand for those to train on, where those are many.
        is_framewise: Whether "labels" are events, and a model is to say when they are.
        sampling_rate: Rate of the sound in Hz.
        split_names: What the data set calls the split of each role; None where clips to train on were held out.
    """

    splits: dict[str, Dataset | FeatureClips | RecordingPieces]
    classes: list[str]
    is_multi_label: bool
    left_out: dict[str, int]
    lengths: dict[str, list[int]]
    sample: Iterable[dict] | None = None
    is_framewise: bool = False
    sampling_rate: int = SAMPLING_RATE
    split_names: dict[str, str | None] = field(default_factory=dict)

    @property
    def longest_seconds(self) -> float:
        """Length of the longest clip to train on, or else to evaluate on."""
        role = next(role for role in ROLES if role in self.lengths)
        return max(self.lengths[role]) / self.sampling_rate

    @property
    def problem_type(self) -> str:
        """As in the model's config."""
        return MULTI_LABEL if self.is_multi_label else SINGLE_LABEL

    @property
    def metric(self) -> str:
        """The result of `audio_tagging` that checkpoints are chosen by."""
        return task_metric(self.is_multi_label)


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
        splits, names = find_roles(arguments, ["train"] if training.do_train else ["validation", "test", "train"])
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
        write_report(facts, arguments.dataset_name, training, sampling_rate)
        refuse_unusable(facts, decoder.is_multi_label)
    clips = {role: split.remove_columns([SOURCE, FACTS]) for role, split in clips.items()}
    if is_framewise := arguments.task == "frames":
        clips = {role: split.remove_columns("labels").rename_column(EVENTS, "labels") for role, split in clips.items()}
    lengths = {role: clip_lengths(split) for role, split in clips.items()}
    counts = {role: len(split) for role, split in left_out.items() if split}
    return Clips(
        clips,
        classes,
        decoder.is_multi_label,
        counts,
        lengths,
        is_framewise=is_framewise,
        sampling_rate=decoder.sampling_rate,
        split_names={role: names.get(role) for role in clips},
    )


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


def warn_of_crops(clips: Clips, crop_seconds: float) -> None:
    """Say how many clips are so long that crops of so many seconds may lack what their labels name."""
    lengths = clips.lengths["train"]
    longer = sum(length > MUCH_LONGER * crop_seconds * clips.sampling_rate for length in lengths)
    if longer:
        logger.warning(
            "%d of %d clips that train are longer than %g s: an epoch hears so much of each, with all its labels",
            longer,
            len(lengths),
            crop_seconds,
        )


def cut_recordings(clips: Clips, crop_seconds: float) -> Clips:
    """The clips with long recordings of events in pieces.

    Of those that train crops of so many seconds are learned, each moment as often as another, but for both ends of a
    recording. Others are as long as a crop at most, since a model knows no longer ones.
    """
    splits = {}
    for role, split in clips.splits.items():
        piece, overlap = (CROPS * crop_seconds, crop_seconds) if role == "train" else (crop_seconds, 0.0)
        splits[role] = RecordingPieces(split, clips.lengths[role], piece, overlap, clips.sampling_rate)
    return replace(clips, splits=splits)


def find_hours(lengths: Sequence[int], count: int, sampling_rate: int) -> float | None:
    """Length of all clips; None where that of some is known."""
    return sum(lengths) / sampling_rate / 3600 if len(lengths) == count else None


def describe_data(arguments: DataArguments, clips: Clips) -> dict:
    """What the card says about the data.

    Args:
        arguments: Which data.
        clips: Made of them.
    """
    source = arguments.dataset_name
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
        "config": arguments.dataset_config_name,
        "license": license,
        "split_names": clips.split_names,
        "validation_group": arguments.validation_column and [arguments.validation_column, arguments.validation_value],
        "splits": {
            role: {"clips": len(split), "hours": find_hours(clips.lengths[role], len(split), clips.sampling_rate)}
            for role, split in clips.splits.items()
        },
        "left_out": clips.left_out,
    }
