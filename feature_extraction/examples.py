"""What the examples of a batch hold: features without their padding, and labels, stacked and for training smoothed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .feature_extraction_fftp import count_real_frames


def all_have(examples: list[dict[str, Any]], name: str) -> bool:
    """Whether all examples of a batch have something, or none has.

    Raises:
        ValueError: Some have it.
    """
    have = [name in example for example in examples]
    if any(have) and not all(have):
        raise ValueError(f"example {have.index(False)} has no {name!r}; others of its batch have")
    return all(have)


def name_labels(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Examples whose labels have the name "labels", whatever name of those that transformers' collators take.

    Raises:
        ValueError: Examples that are no dicts.
    """
    if not isinstance(examples[0], Mapping):
        kind = type(examples[0]).__name__
        raise ValueError(f"the examples are of type {kind}; expected dicts, such as {{'audio': ..., 'labels': ...}}")
    for name in ("label", "label_ids"):
        if not all_have(examples, "labels") and all_have(examples, name):
            return [{**example, "labels": example[name]} for example in examples]
    return examples


def as_array(values: Any) -> np.ndarray:
    """Numbers of any kind, of a tensor on any device too, as NumPy's."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    # NumPy has no bfloat16.
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()


def real_frames(example: dict[str, Any], index: int, padding_value: float) -> np.ndarray:
    """Features (frames, mel bins) without the padding that their mask names, or that is found where it was lost.

    Raises:
        ValueError: Features of a batch, or a mask that is not one of them with padding on the right.
    """
    features, mask = as_array(example["input_values"]), example.get("attention_mask")
    if features.ndim != 2:
        raise ValueError(
            f"the features of example {index} have shape {features.shape}; expected (frames, mel bins). An extractor "
            'returns batches: take ["input_values"][0], or map with batched=True'
        )
    if mask is None:
        # In the type in which it was padded.
        return features[: count_real_frames(features, padding_value)].astype(np.float32, copy=False)
    features = features.astype(np.float32, copy=False)
    is_real = as_array(mask) != 0
    count = np.count_nonzero(is_real)
    if is_real.shape != features.shape[:1] or not is_real[:count].all():
        raise ValueError(
            f"the attention_mask of example {index} has shape {is_real.shape} and {count} ones; expected "
            f"{features.shape[:1]}, 1 at each frame and 0 at the padding behind them"
        )
    return features[:count]


def stack_labels(examples: list[dict[str, Any]]) -> torch.Tensor:
    """Indices as (batch,) int64, vectors over the labels as (batch, labels) float32.

    Raises:
        ValueError: Labels that are no numbers, or of several shapes.
    """
    labels = [as_array(example["labels"]) for example in examples]
    for index, label in enumerate(labels):
        if label.dtype.kind not in "biuf":
            raise ValueError(f"the labels of example {index} are {examples[index]['labels']!r}; expected numbers")
    shapes = sorted({label.shape for label in labels})
    if len(shapes) > 1:
        raise ValueError(
            f"labels have the shapes {shapes}; expected one for all clips. Labels per step need step_labels"
        )
    stacked = torch.from_numpy(np.stack(labels))
    return stacked.long() if stacked.ndim == 1 and not stacked.is_floating_point() else stacked.float()


def soften(
    labels: torch.Tensor, label_smoothing: float, num_labels: int | None, problem_type: str | None = None
) -> torch.Tensor:
    """Smoothed vectors over the labels; mixed afterwards they are what a smoothed mixture would be.

    Args:
        labels: Indices (batch,), or vectors (batch, labels).
        label_smoothing: Share of the targets that is spread.
        num_labels: Length of the vectors.
        problem_type: See `SpecMaskDataCollator`.

    Raises:
        ValueError: Labels that are neither, or vectors of unknown length.
    """
    if num_labels is None:
        raise ValueError("mixup and label smoothing make distributions over the labels; set num_labels")
    are_indices = labels.ndim == 1
    if are_indices and labels.is_floating_point():
        raise ValueError("labels are floats, one per clip; mixup and label smoothing expect indices or vectors")
    if are_indices:
        if wrong := [index for index, label in enumerate(labels.tolist()) if not 0 <= label < num_labels]:
            raise ValueError(
                f"the label of example {wrong[0]} is {labels[wrong[0]]}; mixup and label smoothing expect 0 "
                f"to {num_labels - 1}, as num_labels={num_labels}"
            )
        labels = torch.nn.functional.one_hot(labels, num_labels).float()
    elif num_labels != labels.shape[1]:
        raise ValueError(f"labels are vectors of {labels.shape[1]}; expected num_labels={num_labels}")
    has_one_class = are_indices or problem_type == "single_label_classification"
    rest = torch.full_like(labels, 1 / num_labels if has_one_class else 1 / 2)
    return torch.lerp(labels, rest, label_smoothing)
