"""Clips for which a teacher's answers stand in for labels."""

import logging
from dataclasses import fields

import numpy as np
from datasets import Dataset, concatenate_datasets
from scipy.special import expit

from ..arguments import DataArguments, FFTPTrainingArguments
from ..data.arguments import MAX_SECONDS, SourceArguments
from ..data.held_out import VALIDATION_FRACTION
from ..data.loading import Clips
from ..data.unlabelled import SoundArguments, load_pieces
from .distillation import Teacher

logger = logging.getLogger(__name__)


def load_unlabelled_clips(
    arguments: DataArguments, training: FFTPTrainingArguments, teacher: Teacher, sampling_rate: int
) -> Clips:
    """Sound without labels, cut to clips; those to measure on are labelled by the teacher.

    So what is measured is how often the student agrees with the teacher.

    Args:
        arguments: Which sound.
        training: Seed and processes.
        teacher: The teacher, whose classes the student learns.
        sampling_rate: Rate in Hz that sound is resampled to.

    Raises:
        ValueError: No sound to learn.
    """
    seconds = arguments.max_seconds or MAX_SECONDS
    given = {item.name: getattr(arguments, item.name) for item in fields(SourceArguments)}
    given |= {"max_seconds": seconds, "validation_fraction": arguments.validation_fraction or VALIDATION_FRACTION}
    sound = SoundArguments(**given)
    with training.main_process_first(desc="decoding"):
        pieces = load_pieces(sound, seconds, training, sampling_rate)
    splits = dict(pieces.splits)
    if "validation" in splits:
        with training.main_process_first(desc="answers"):
            splits["validation"] = label(splits["validation"], teacher)
    else:
        logger.warning("Too few recordings to measure on a share of them: no epoch is measured")
    known = teacher.classes, teacher.is_multi_label, pieces.left_out, pieces.lengths
    return Clips(splits, *known, sampling_rate=sampling_rate)


def label(clips: Dataset, teacher: Teacher) -> Dataset:
    """The clips with the labels that the teacher gives them; of several, those that its pipeline would report.

    Raises:
        ValueError: It gives none.
    """
    logits = teacher.answer(clips)["teacher_logits"][:]
    if teacher.is_multi_label:
        labels = (expit(logits) >= teacher.thresholds).astype(np.float32)
    else:
        labels = logits.argmax(axis=1)
    if teacher.is_multi_label and not labels.any():
        raise ValueError(
            f"the teacher finds none of its labels in the {len(clips)} clips to measure on: no score can be computed; "
            "add recordings, or raise --validation_fraction"
        )
    return concatenate_datasets([clips, Dataset.from_dict({"labels": labels})], axis=1).with_format("numpy")
