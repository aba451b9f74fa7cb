"""Clips that are kept out of training to validate on, where a data set has no split for that."""

import logging
from math import ceil

import numpy as np
from datasets import Dataset, concatenate_datasets
from sklearn.model_selection import train_test_split

from .arguments import DataArguments
from .clip_decoder import FACTS
from .sources import read_names
from .strong_labels import split_measurable

logger = logging.getLogger(__name__)

# Share of the clips to train on that validate where there is no split for that.
VALIDATION_FRACTION = 0.1
# Draws of clips with several labels at most, and labels of clips that are looked at for them.
DRAWS, MOST_LABELS = 100, 10_000_000


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


def hold_out_group(dataset: Dataset, column: str, value: str) -> tuple[Dataset, Dataset]:
    """Split off the clips of one group (a fold, a speaker).

    Raises:
        ValueError: A group that holds no clips, or all.
    """
    groups = np.array([str(group) for group in read_names(dataset, column)])
    is_held_out = groups == value
    if not is_held_out.any() or is_held_out.all():
        raise ValueError(
            f"{column}={value!r} holds {is_held_out.sum()} of {len(groups)} clips; the groups are "
            f"{sorted({*groups.tolist()})}"
        )
    return dataset.select(np.flatnonzero(~is_held_out)), dataset.select(np.flatnonzero(is_held_out))


def hold_out_fraction(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split off a random fraction of the clips.

    Of clips with one class each it is about the same proportion of every class: at least as many clips as there are
    classes are held out, and a class of one clip only trains. Of others it is a share of their sound, if its length is
    known, and has as many of the classes as can be.

    Raises:
        ValueError: No class has two clips, or there is one clip alone.
    """
    labels = np.asarray(dataset["labels"][:])
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} clip to draw from; expected two, one to train on and one to validate")
    if labels.ndim == 1:
        classes, counts = np.unique(labels, return_counts=True)
        shared = classes[counts > 1]
        if not len(shared):
            raise ValueError(
                f"{len(labels)} clips of {len(classes)} classes: expected two clips of one class to split"
            )
        clips = np.flatnonzero(np.isin(labels, shared))
        wanted = min(max(ceil(fraction * len(clips)), len(shared)), len(clips) - len(shared))
        _, held_out = train_test_split(clips, test_size=wanted, random_state=seed, stratify=labels[clips])
    else:
        seconds = np.ones(len(labels))
        # Streamed clips tell no lengths.
        if FACTS in getattr(dataset, "column_names", ()):
            seconds = np.array([facts["seconds"] for facts in dataset.with_format(None)[FACTS]])
        held_out = draw_covering(labels > 0, seconds, fraction, seed)
    return dataset.select(np.setdiff1d(np.arange(len(labels)), held_out)), dataset.select(np.sort(held_out))


def draw_covering(labels: np.ndarray, seconds: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw clips to hold out: some times, and the best draw counts.

    It is that with most classes on both sides, and among equals that whose shares are nearest: of the sound, and on
    average of each class and of the clips without any.

    Args:
        labels: Whether a clip has a class, (clips, classes).
        seconds: Length of each clip.
        fraction: Wanted share of the sound.
        seed: Decides the draws.

    Returns:
        Indices of the clips; there are others.
    """
    rng = np.random.default_rng(seed)
    parts = np.column_stack((labels, ~labels.any(axis=1), seconds))
    parts = parts[:, parts.any(axis=0)]
    parts = parts / parts.sum(axis=0)
    best, held_out = (-1, 0.0), np.arange(0)
    for _ in range(max(1, min(DRAWS, MOST_LABELS // labels.size))):
        order = rng.permutation(len(labels))
        count = int(np.abs(parts[order, -1].cumsum()[:-1] - fraction).argmin()) + 1
        shared = labels[order[:count]].any(axis=0) & labels[order[count:]].any(axis=0)
        misses = np.abs(parts[order[:count]].sum(axis=0) - fraction)
        rank = (int(shared.sum()), -float(misses[-1] + misses[:-1].mean()))
        if rank > best:
            best, held_out = rank, order[:count]
    return held_out
