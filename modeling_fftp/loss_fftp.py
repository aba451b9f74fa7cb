"""The loss of both heads, which follows `problem_type` and never a dtype."""

import torch
from torch import nn

from .configuration_fftp import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL, FFTPConfig
from .dtypes_fftp import as_float
from .events_fftp import SOMEWHERE
from .tracing_fftp import has_values

# Index of a clip or step without a label, as in `cross_entropy`.
IGNORED = -100
# How far the sum of a distribution may be from 1: what float16 rounds in a few hundred labels.
ROUNDING = 1e-2
# Scores stay this far from 1, so that their logit is finite.
TINY = 1e-7


def classification_loss(labels: torch.Tensor, logits: torch.Tensor, config: FFTPConfig) -> torch.Tensor:
    """Mean loss over clips, in float32; the order of arguments is that of transformers' losses.

    Args:
        labels: For "single_label_classification" indices (batch,), -100 where a clip has none, or distributions
            (batch, labels) as mixup makes them; for "multi_label_classification" targets in [0, 1], (batch, labels);
            for "regression" values like `logits`, or (batch,) where there is one label.
        logits: (batch, labels).
        config: Config whose `problem_type` is one of those three.

    Returns:
        A scalar.

    Raises:
        ValueError: Labels whose shape or values do not belong to the problem type, or an unknown problem type.
    """
    problem_type = config.problem_type
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"problem_type={problem_type!r} is unknown; expected one of {', '.join(PROBLEM_TYPES)}")
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"labels are of type {type(labels).__name__}; expected a tensor")
    logits, labels = as_float(logits), labels.to(logits.device)
    if problem_type == REGRESSION and labels.ndim < logits.ndim and logits.shape[-1] == 1:
        labels = labels.unsqueeze(-1)
    has_indices = problem_type == SINGLE_LABEL and labels.ndim < logits.ndim
    expected = logits.shape[:-1] if has_indices else logits.shape
    if labels.shape != expected:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}; {problem_type} with logits {tuple(logits.shape)} expects "
            f"{tuple(expected)}"
        )
    if has_indices:
        if labels.is_floating_point():
            raise ValueError(f"labels are {labels.dtype}; an index per clip is a whole number")
        # An unsigned type has a class in place of what is ignored.
        labels = labels.long()
        total = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        # Of no labels at all the mean would be NaN, and end the training.
        return total / (labels != IGNORED).sum().clamp(min=1)
    if problem_type == SINGLE_LABEL:
        _refuse_other_than_distributions(labels)
        return nn.functional.cross_entropy(logits, labels.to(logits))
    if problem_type == MULTI_LABEL:
        _refuse_other_than_shares(labels)
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits))
    return nn.functional.mse_loss(logits, labels.to(logits))


def pool_somewhere(
    labels: torch.Tensor, logits: torch.Tensor, is_real: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """For labels without times, the clip's pooled score takes the place of the steps' own.

    The pool is the mean of the scores, weighted by themselves (linear softmax, Wang et al. 2019), so that a clip's
    best steps learn to hold the label, and its others not to.

    Args:
        labels: Targets (batch, steps, labels), with `SOMEWHERE`.
        logits: (batch, steps, labels).
        is_real: Steps that are not padding, (batch, steps).

    Returns:
        Labels with 1, and logits with those of the pooled scores, where labels were `SOMEWHERE`.
    """
    if labels.shape != logits.shape:
        # What `classification_loss` refuses.
        return labels, logits
    logits = as_float(logits)
    # In logarithms, so that a label of which no step is sure can still be learned.
    log_scores = nn.functional.logsigmoid(logits.masked_fill(~is_real[..., None], float("-inf")))
    log_pooled = (2 * log_scores).logsumexp(dim=1, keepdim=True) - log_scores.logsumexp(dim=1, keepdim=True)
    pooled_logits = log_pooled - (-log_pooled.expm1()).clamp(min=TINY).log()
    is_somewhere = labels == SOMEWHERE
    return labels.to(logits).masked_fill(is_somewhere, 1.0), torch.where(is_somewhere, pooled_logits, logits)


def _refuse_other_than_distributions(labels: torch.Tensor) -> None:
    if not (has_values(labels) and labels.numel()):
        return
    sums = labels.float().sum(dim=-1)
    if not ((labels >= 0).all() and ((sums - 1).abs() <= ROUNDING).all()):
        raise ValueError(
            f"labels sum to {sums.min().item():.4g} to {sums.max().item():.4g} per clip; single_label_classification "
            "expects an index per clip, or a distribution that sums to 1. Where a clip can have several labels, "
            "problem_type is 'multi_label_classification'"
        )


def _refuse_other_than_shares(labels: torch.Tensor) -> None:
    if has_values(labels) and labels.numel() and not ((labels >= 0) & (labels <= 1)).all():
        low, high = (limit.item() for limit in labels.float().aminmax())
        raise ValueError(
            f"labels lie in [{low:.4g}, {high:.4g}]; multi_label_classification expects targets in [0, 1]"
        )
