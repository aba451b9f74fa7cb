"""The clips of a run: decoded, divided, and cut where they are long."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Dataset
from transformers import TrainingArguments

from modeling_fftp.configuration_fftp import MULTI_LABEL, SINGLE_LABEL
from modeling_fftp.hub.metrics import task_metric

from .arguments import SAMPLING_RATE, DataArguments
from .clip_decoder import FACTS, SOURCE
from .decoding import announce_cache, clip_lengths, decode_dataset
from .features import FeatureClips
from .held_out import hold_out
from .left_out import report_left_out
from .plan import DataPlan, decoders_of
from .recording_pieces import CROPS, RecordingPieces
from .report import find_split_facts, refuse_unusable, write_report
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
        is_framewise: Whether "labels" are events, and a model is to say when they are.
        sampling_rate: Rate of the sound in Hz.
        split_names: What the data set calls the split of each role; None where clips to train on were held out.
    """

    splits: dict[str, Dataset | FeatureClips | RecordingPieces]
    classes: list[str]
    is_multi_label: bool
    left_out: dict[str, int]
    lengths: dict[str, list[int]]
    is_framewise: bool = False
    sampling_rate: int = SAMPLING_RATE
    split_names: dict[str, str | None] = field(default_factory=dict)

    def sample(self, role: str) -> Dataset | RecordingPieces | None:
        """Clips of a role that can be decoded, if it has any: of streamed ones those that were looked at."""
        split = self.splits.get(role)
        return getattr(split, "sample", split)

    @property
    def longest_seconds(self) -> float:
        """Length of the longest clip to train on, or else to evaluate on."""
        role = next(role for role in ROLES if role in self.lengths)
        return max(self.lengths[role]) / self.sampling_rate

    @classmethod
    def of(
        cls,
        plan: DataPlan,
        splits: dict[str, Any],
        left_out: dict[str, list[dict]],
        lengths: dict[str, list[int]],
    ) -> "Clips":
        """What became of a plan."""
        return cls(
            splits,
            plan.classes,
            plan.decoder.is_multi_label,
            {role: len(clips) for role, clips in left_out.items() if clips},
            lengths,
            is_framewise=plan.decoder.keeps_events,
            sampling_rate=plan.decoder.sampling_rate,
            split_names={role: plan.names.get(role) for role in splits},
        )

    @property
    def problem_type(self) -> str:
        """As in the model's config."""
        return MULTI_LABEL if self.is_multi_label else SINGLE_LABEL

    @property
    def metric(self) -> str:
        """The result of `audio_tagging` that checkpoints are chosen by."""
        return task_metric(self.is_multi_label)


def load_clips(plan: DataPlan, arguments: DataArguments, training: TrainingArguments) -> Clips:
    """Decode every split of a plan; the first process decodes, the others find it in the cache.

    Args:
        plan: What to decode.
        arguments: What part of it.
        training: Seed and processes.

    Raises:
        ValueError: More unusable clips than `--max_left_out`, or clips that no training could use.
    """
    with training.main_process_first(desc="decoding"):
        clips, left_out = decode_splits(plan, arguments, training)
        clips = hold_out(clips, arguments, training.seed)
        if arguments.max_train_samples and "train" in clips:
            shuffled = clips["train"].shuffle(seed=training.seed)
            clips["train"] = shuffled.select(range(min(arguments.max_train_samples, len(shuffled))))
        if arguments.task == "frames":
            clips = {role: split if role == "train" else keep_measurable(split, role) for role, split in clips.items()}
        facts = {role: find_split_facts(split, plan.classes, left_out.get(role, [])) for role, split in clips.items()}
        write_report(facts, arguments.dataset_name, training, plan.decoder.sampling_rate)
        refuse_unusable(facts, plan.decoder.is_multi_label)
    clips = {role: split.remove_columns([SOURCE, FACTS]) for role, split in clips.items()}
    if arguments.task == "frames":
        clips = {role: split.remove_columns("labels").rename_column(EVENTS, "labels") for role, split in clips.items()}
    return Clips.of(plan, clips, left_out, {role: clip_lengths(split) for role, split in clips.items()})


def decode_splits(
    plan: DataPlan, arguments: DataArguments, training: TrainingArguments
) -> tuple[dict[str, Dataset], dict[str, list[dict]]]:
    """Clips by role, and what cannot be used of each."""
    group = arguments.validation_column
    decoders = decoders_of(plan.splits, plan.decoder)
    announce_cache(plan.splits, plan.decoder)
    clips, left_out = {}, {}
    for role, decoder in decoders.items():
        columns = [group] if group and role == "train" else []
        decoded, left_out[role] = decode_dataset(
            plan.splits[role], decoder, keep_columns=columns, num_proc=arguments.num_proc
        )
        clips[role] = decoded.with_format("numpy")
    shares = {role: len(left_out[role]) / max(1, len(split) + len(left_out[role])) for role, split in clips.items()}
    report_left_out(left_out, shares, arguments.max_left_out, training)
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
