"""The loss of both heads, which follows `problem_type` and never a dtype."""

import torch
from torch import nn


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, problem_type: str | None) -> torch.Tensor:
    """Mean loss over clips, in float32.

    Args:
        logits: (batch, labels).
        labels: For "single_label_classification" indices (batch,), or distributions (batch, labels) as mixup makes
            them; for "multi_label_classification" targets in [0, 1], (batch, labels); for "regression" values like
            `logits`, or (batch,) where there is one label.
        problem_type: One of those three.

    Returns:
        A scalar.

    Raises:
        ValueError: Labels whose shape does not belong to the problem type, or an unknown problem type.
    """
    logits, labels = logits.float(), labels.to(logits.device)
    if problem_type == "regression" and labels.ndim < logits.ndim and logits.shape[-1] == 1:
        labels = labels.unsqueeze(-1)
    has_indices = problem_type == "single_label_classification" and labels.ndim < logits.ndim
    expected = logits.shape[:-1] if has_indices else logits.shape
    if labels.shape != expected:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}; {problem_type} with logits {tuple(logits.shape)} expects "
            f"{tuple(expected)}"
        )
    if problem_type == "single_label_classification":
        return nn.functional.cross_entropy(logits, labels.long() if has_indices else labels.float())
    if problem_type == "multi_label_classification":
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    if problem_type == "regression":
        return nn.functional.mse_loss(logits, labels.float())
    raise ValueError(
        f"problem_type={problem_type!r} is unknown; expected 'single_label_classification', "
        "'multi_label_classification' or 'regression'"
    )
