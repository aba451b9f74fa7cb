"""Scores of labels: from logits, in which order, and from which one a label counts as heard."""

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedConfig

from .configuration_fftp import MULTI_LABEL, REGRESSION

# Of a label without a threshold of its own.
DEFAULT_THRESHOLD = 0.5


def is_multi_label(config: PreTrainedConfig) -> bool:
    """Whether a clip can have several labels, or none."""
    return config.problem_type == MULTI_LABEL


def is_regression(config: PreTrainedConfig) -> bool:
    """Whether outputs are values, and no scores of classes."""
    return config.problem_type == REGRESSION


def probabilities(logits: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Scores of logits (..., labels), in [0, 1]; where a clip has one label they sum to 1."""
    return logits.sigmoid() if is_multi_label(config) else logits.softmax(dim=-1)


def label_names(config: PreTrainedConfig) -> list[str]:
    """Labels in the order of the logits, of a config of any package."""
    return [config.id2label[index] for index in range(config.num_labels)]


def label_thresholds(
    names: Sequence[str], thresholds: Mapping[str, float] | None, threshold: float | None = None
) -> list[float]:
    """Score from which each label counts as heard.

    Args:
        names: Names of the labels, in their order.
        thresholds: A config's thresholds, by name.
        threshold: For all labels, in place of those.

    Returns:
        One for each name: the one for all, or its own, or else `DEFAULT_THRESHOLD`.

    Raises:
        ValueError: As `check_threshold`, or a config's threshold is of no label.
    """
    if threshold is not None:
        check_threshold(threshold)
        return [threshold] * len(names)
    thresholds = thresholds or {}
    if unknown := sorted({*thresholds} - {*names}):
        raise ValueError(f"thresholds names {unknown[0]!r}, which is not a label; the labels are {[*names]}")
    return [thresholds.get(name, DEFAULT_THRESHOLD) for name in names]


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that no score can be compared with.

    Raises:
        ValueError: It is not in [0, 1], as scores are.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold={threshold} must lie in [0, 1], as scores do")
