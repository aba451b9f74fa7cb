"""What a graph that is traced, or a transform of torch, does not know."""

import torch
from torch.autograd import forward_ad
from transformers.utils import is_tracing

# No public name of torch tells these states, and a checkpoint's code outlives private ones.
_peek_transform = getattr(torch._C._functorch, "peek_interpreter_stack", lambda: None)


def takes_other_derivatives() -> bool:
    """Whether derivatives are taken that kernels do not have: in forward mode, or through `torch.func`.

    Forward mode would go through a kernel in silence, and come out as zeros.
    """
    return getattr(forward_ad, "_current_level", -1) >= 0 or _peek_transform() is not None


def has_values(tensor: torch.Tensor) -> bool:
    """Whether code may decide by what a tensor holds.

    It may not on "meta", in a graph that is being traced, which is for any values, nor in `torch.func`, where a
    tensor may stand for many.
    """
    return not (tensor.is_meta or is_tracing(tensor) or takes_other_derivatives())
