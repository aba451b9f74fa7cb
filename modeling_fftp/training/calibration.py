"""Scores and thresholds that mean something: a temperature and a threshold per class, chosen on held-out clips."""

import logging
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import precision_recall_curve, precision_recall_fscore_support
from torch.nn.functional import one_hot

from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.configuration_fftp import SILENT_THRESHOLD
from modeling_fftp.loss_fftp import classification_loss
from modeling_fftp.scores_fftp import DEFAULT_THRESHOLD, label_names, label_thresholds, probabilities

from .processes import reshard

logger = logging.getLogger(__name__)

# Natural logarithms of the lowest and highest temperature.
LOG_TEMPERATURES = (-3.0, 3.0)
# Of confidence, in the expected calibration error; as in Guo et al. 2017.
BINS = 15


@dataclass
class Calibration:
    """A calibration of scores, by held-out clips.

    Args:
        temperature: Divides the logits.
        thresholds: Score from which a class counts as heard, by its name; of classes that the clips tell nothing about
            there is none.
    """

    temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)


def fit_calibration(
    logits: np.ndarray, labels: np.ndarray, config: FFTPConfig, target_precision: float | None = None
) -> Calibration:
    """A temperature, and where a clip can have several labels, or a precision is wanted, a threshold per class.

    Args:
        logits: Logits of held-out clips, (clips, classes).
        labels: Indices (clips,), or 0 and 1, (clips, classes).
        config: The model's config.
        target_precision: Share of right answers that each class is to keep; None maximises F1.
    """
    logits, labels = torch.from_numpy(logits).float(), torch.from_numpy(labels)
    temperature = fit_temperature(logits, labels, config)
    if labels.ndim == 1 and target_precision is None:
        return Calibration(temperature)
    scores = probabilities(logits / temperature, config).numpy()
    targets = one_hot(labels.long(), scores.shape[1]).numpy() if labels.ndim == 1 else labels.numpy()
    found = {
        name: fit_threshold(scores[:, index], targets[:, index], target_precision)
        for index, name in config.id2label.items()
        if targets[:, index].any()
    }
    for problem, chosen in (
        ("silent, since no threshold is precise enough", SILENT_THRESHOLD),
        (f"left at {DEFAULT_THRESHOLD}", None),
    ):
        if names := [name for name, threshold in found.items() if threshold == chosen]:
            logger.warning("Thresholds: %s: %s", problem, ", ".join(names))
    return Calibration(temperature, {name: threshold for name, threshold in found.items() if threshold is not None})


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor, config: FFTPConfig) -> float:
    """Find the temperature, which logits are divided by, with the lowest loss (Guo et al. 2017).

    Targets are a little below 1 and above 0, as in Platt 1999: no finite number of clips justifies a score of 1 or 0.
    """
    targets = smooth_single(labels, logits.shape[1]) if labels.ndim == 1 else smooth_multiple(labels)

    def loss(log_temperature: float) -> float:
        return classification_loss(targets, logits / np.exp(log_temperature), config).item()

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded").x))


def smooth_single(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Indices to distributions, (clips, classes), that share out 1 / (clips + 2)."""
    share = 1 / (len(labels) + 2)
    return one_hot(labels.long(), num_classes) * (1 - share) + share / num_classes


def smooth_multiple(labels: torch.Tensor) -> torch.Tensor:
    """0 and 1 to 1 / (negatives + 2) and (positives + 1) / (positives + 2), counted over all classes."""
    positives = labels.sum()
    negatives = labels.numel() - positives
    return torch.where(labels > 0.5, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def fit_threshold(scores: np.ndarray, targets: np.ndarray, target_precision: float | None = None) -> float | None:
    """The score from which clips count as positive.

    Args:
        scores: Scores in [0, 1], (clips,).
        targets: 0 and 1, (clips,), of which one is 1.
        target_precision: Precision to keep, with the highest recall; None maximises F1.

    Returns:
        Half-way from the lowest score that counts to the next one below; `SILENT_THRESHOLD` where no score is precise
        enough; None where the best is to count all clips, which says nothing of other sound.
    """
    precision, recall, candidates = precision_recall_curve(targets, scores)
    precision, recall = precision[:-1], recall[:-1]
    if target_precision is None:
        best = np.argmax(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    elif not (enough := np.flatnonzero(precision >= target_precision)).size:
        return SILENT_THRESHOLD
    else:
        best = enough[0]
    # float32 may have no number between the two.
    return (float(candidates[best]) + float(candidates[best - 1])) / 2 if best else None


def apply_calibration(model: FFTPForAudioClassification, calibration: Calibration) -> None:
    """Divide the logits of a model by the temperature, in its head, and let its config hold the thresholds."""
    reshard(model)
    with torch.no_grad():
        for parameter in model.classifier.dense.parameters():
            parameter.div_(calibration.temperature)
    model.config.thresholds = calibration.thresholds or None


def measure_calibration(logits: np.ndarray, labels: np.ndarray, config: FFTPConfig, calibration: Calibration) -> dict:
    """Measure what a calibration changes on clips: results "before" and "after".

    Args:
        logits: Logits of the calibrated model, (clips, classes).
        labels: See `fit_calibration`.
        config: See `fit_calibration`.
        calibration: The model's calibration.
    """
    logits = torch.from_numpy(logits).float()
    after = probabilities(logits, config).numpy()
    before = probabilities(logits * calibration.temperature, config).numpy()
    names = label_names(config)
    thresholds = label_thresholds(names, calibration.thresholds)
    return {
        "before": measure_scores(before, labels, [DEFAULT_THRESHOLD] * len(names)),
        "after": measure_scores(after, labels, thresholds),
    }


def measure_scores(scores: np.ndarray, labels: np.ndarray, thresholds: list[float]) -> dict:
    """Measure how far scores can be believed.

    Args:
        scores: Scores in [0, 1], (clips, classes).
        labels: Indices (clips,), or 0 and 1, (clips, classes).
        thresholds: Scores from which each class counts as heard.

    Returns:
        "ece", the expected calibration error, over the best class of each clip where it has one, and else over all
        classes; its "bins": mean score, share that is right and number of each that is not empty; and at the
        thresholds the means over the classes that the clips have of "precision", "recall" and "f1".
    """
    if labels.ndim == 1:
        believed, is_right = scores.max(axis=1), scores.argmax(axis=1) == labels
        targets = np.eye(scores.shape[1], dtype=int)[labels]
    else:
        believed, is_right = scores.ravel(), labels.ravel() > 0.5
        targets = (labels > 0.5).astype(int)
    places = np.minimum((believed * BINS).astype(int), BINS - 1)
    bins = [
        {"score": believed[here].mean().item(), "right": is_right[here].mean().item(), "count": here.sum().item()}
        for here in (places == place for place in range(BINS))
        if here.any()
    ]
    error = sum(abs(row["score"] - row["right"]) * row["count"] for row in bins) / len(believed)
    answers = (scores >= np.array(thresholds)).astype(int)
    per_class = [
        precision_recall_fscore_support(target, answer, average="binary", zero_division=0.0)[:3]
        for target, answer in zip(targets.T, answers.T, strict=True)
        if target.any()
    ]
    means = np.mean(per_class, axis=0).tolist()
    return {"ece": error, "bins": bins, **dict(zip(("precision", "recall", "f1"), means, strict=True))}
