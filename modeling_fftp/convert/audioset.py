"""What checkpoints that were trained on AudioSet have in common: features, padding, and a table of labels."""

import csv
import logging
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp.configuration_fftp import MULTI_LABEL, PROBLEM_TYPES

logger = logging.getLogger(__name__)

NUM_MEL_BINS, NUM_LABELS = 128, 527
MEAN, STD = -4.2677393, 4.5689974


def build_feature_extractor(max_length: int, mean: float, std: float, **others: Any) -> FFTPFeatureExtractor:
    """Build the extractor of AST and its kin, which pads zeros before normalisation and masks nothing.

    Args:
        max_length: Frames to pad and cut to.
        mean: Mean of the training audio's log-mel energies.
        std: Their standard deviation.
        **others: Further fields of the extractor.

    Raises:
        ValueError: A deviation that is not positive.
    """
    if std <= 0:
        raise ValueError(f"std={std} must be positive")
    return FFTPFeatureExtractor(
        max_length=max_length,
        mean=mean,
        std=std,
        padding="max_length",
        truncation=True,
        padding_value=-mean / (2 * std) if others.get("do_normalize", True) else 0.0,
        return_attention_mask=False,
        **{"num_mel_bins": NUM_MEL_BINS} | others,
    )


def find_problem_type(config: PreTrainedConfig) -> str | None:
    """Problem type of a classifier of transformers; where it does not say, AudioSet's if it has as many labels.

    The checkpoints of AST do not say, and a softmax over AudioSet's labels would let one of them speak at a time.
    """
    if config.problem_type is None and config.num_labels == NUM_LABELS:
        logger.warning("The source has the %d labels of AudioSet: a clip may have several", NUM_LABELS)
        return MULTI_LABEL
    return config.problem_type


def describe_head(problem_type: str, labels: Path | None, num_labels: int) -> dict:
    """Fields of the config that say what a head answers.

    Args:
        problem_type: The config's `problem_type`.
        labels: CSV with the columns index and display_name, like AudioSet's; None names no label.
        num_labels: Labels of the head.

    Raises:
        ValueError: An unknown problem type, or a table that does not name every label.
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"--problem_type {problem_type} is unknown; expected one of {', '.join(PROBLEM_TYPES)}")
    fields = {"problem_type": problem_type, "num_labels": num_labels}
    if labels is None:
        return fields
    with Path(labels).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"index", "display_name"} <= {*(rows.fieldnames or ())}:
            raise ValueError(f"{labels} has the columns {rows.fieldnames}; expected index and display_name")
        names = {int(row["index"]): row["display_name"] for row in rows}
    if sorted(names) != [*range(num_labels)]:
        raise ValueError(f"{labels} names {len(names)} labels; the head has {num_labels}, counted from 0")
    return {"problem_type": problem_type, "id2label": names}
