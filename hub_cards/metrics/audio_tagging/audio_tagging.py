"""Metrics of audio tagging and classification from scores, for `evaluate`."""

from statistics import NormalDist

import datasets
import evaluate
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

DESCRIPTION = """
Mean average precision, mean area under the ROC curve and d' over the classes, and where every clip has one class the
top-1 and top-5 accuracy, all from scores of any scale. Classes that no clip has, or all have, are left out of means
that they are not defined for. Average precision and ROC areas are scikit-learn's.
"""

INPUTS = """
Args:
    predictions: Scores, (clips, classes); logits or probabilities, higher means more likely.
    references: Class indices, (clips,), or for clips with several classes vectors of 0 and 1, (clips, classes).
    class_names: Names of the classes; default: their indices.

Returns:
    map: Mean average precision over the classes with positives.
    mauc: Mean area under the ROC curve over the classes with positives and negatives.
    d_prime: sqrt(2) times the standard normal quantile of `mauc`.
    accuracy: Share of clips whose highest score is their class; only with indices.
    top5_accuracy: Share of clips whose class is among the five highest scores; only with indices.
    per_class: By name, `positives`, `average_precision` and `auc` (None where not defined), and with indices `recall`.
    left_out: Names of the classes without positives.
"""

CITATION = ""


class AudioTagging(evaluate.Metric):
    """Computes the metrics of `DESCRIPTION`."""

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=[
                datasets.Features({"predictions": scores, "references": datasets.Value("int64")}),
                datasets.Features({"predictions": scores, "references": scores}),
            ],
        )

    def _compute(self, predictions, references, class_names=None) -> dict:
        scores, references = np.asarray(predictions), np.asarray(references)
        has_indices = references.ndim == 1
        targets = references[:, None] == np.arange(scores.shape[1]) if has_indices else references == 1
        if targets.shape != scores.shape:
            raise ValueError(f"references has shape {references.shape}; predictions {scores.shape} expect the same")
        if not np.isfinite(scores).all():
            raise ValueError("predictions hold values that are not finite")
        if has_indices and not ((references >= 0) & (references < scores.shape[1])).all():
            raise ValueError(f"references must lie in [0, {scores.shape[1]}), the classes of predictions")
        names = [*map(str, range(scores.shape[1]))] if class_names is None else list(class_names)
        if len(names) != scores.shape[1] or len(set(names)) != len(names):
            raise ValueError(
                f"class_names holds {len(set(names))} different names; predictions have {scores.shape[1]} classes"
            )
        per_class = {name: _class_results(targets[:, i], scores[:, i]) for i, name in enumerate(names)}
        results = {"map": _mean(per_class, "average_precision"), "mauc": _mean(per_class, "auc")}
        results["d_prime"] = _d_prime(results["mauc"])
        if has_indices:
            # Ranks with ties broken by the order of the classes, as argmax does.
            ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
            rank = ranks[np.arange(len(scores)), references]
            results |= {"accuracy": float((rank == 0).mean()), "top5_accuracy": float((rank < 5).mean())}
            for index, name in enumerate(names):
                is_class = references == index
                per_class[name]["recall"] = float((rank[is_class] == 0).mean()) if is_class.any() else None
        left_out = [name for name, values in per_class.items() if not values["positives"]]
        return results | {"per_class": per_class, "left_out": left_out}


def _class_results(targets: np.ndarray, scores: np.ndarray) -> dict:
    """Results of one class; None for what its clips do not define."""
    positives = int(targets.sum())
    return {
        "positives": positives,
        "average_precision": float(average_precision_score(targets, scores)) if positives else None,
        "auc": float(roc_auc_score(targets, scores)) if 0 < positives < len(targets) else None,
    }


def _mean(per_class: dict, key: str) -> float | None:
    values = [values[key] for values in per_class.values() if values[key] is not None]
    return float(np.mean(values)) if values else None


def _d_prime(auc: float | None) -> float | None:
    """Sensitivity index of a ROC area (Gemmeke et al. 2017); None at 0 and 1, where it is infinite."""
    return 2**0.5 * NormalDist().inv_cdf(auc) if auc is not None and 0 < auc < 1 else None
