"""The precision in which sums are taken, whatever the weights have."""

import torch


def as_float(values: torch.Tensor) -> torch.Tensor:
    """Values in float32, or float64 where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
