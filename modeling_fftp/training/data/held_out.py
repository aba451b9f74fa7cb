"""Clips that are kept out of training to validate on, where a data set has no split for that."""

import logging
from math import ceil

import numpy as np
from datasets import Dataset, concatenate_datasets
from sklearn.model_selection import train_test_split

from .arguments import DataArguments
from .strong_labels import split_measurable

logger = logging.getLogger(__name__)

# Share of the clips to train on that validate where there is no split for that.
VALIDATION_FRACTION = 0.1


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
    groups = np.array([str(group) for group in dataset[column][:]])
    is_held_out = groups == value
    if not is_held_out.any() or is_held_out.all():
        raise ValueError(
            f"{column}={value!r} holds {is_held_out.sum()} of {len(groups)} clips; the groups are "
            f"{sorted(set(groups))}"
        )
    return dataset.select(np.flatnonzero(~is_held_out)), dataset.select(np.flatnonzero(is_held_out))


def hold_out_fraction(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split off a random fraction of the clips, in about the same proportion of every class.

    At least as many clips as there are classes are held out; a class of one clip only trains.

    Raises:
        ValueError: No class has two clips, or there is one clip alone.
    """
    labels = np.asarray(dataset["labels"][:])
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} clip to draw from; expected two, one to train on and one to validate")
    clips, wanted, strata = np.arange(len(labels)), fraction, None
    if labels.ndim == 1:
        classes, counts = np.unique(labels, return_counts=True)
        shared = classes[counts > 1]
        if not len(shared):
            raise ValueError(
                f"{len(labels)} clips of {len(classes)} classes: expected two clips of one class to split"
            )
        clips = np.flatnonzero(np.isin(labels, shared))
        strata = labels[clips]
        wanted = min(max(ceil(fraction * len(clips)), len(shared)), len(clips) - len(shared))
    _, held_out = train_test_split(clips, test_size=wanted, random_state=seed, stratify=strata)
    return dataset.select(np.setdiff1d(np.arange(len(labels)), held_out)), dataset.select(np.sort(held_out))
