"""The short causal convolution of Mamba with its SiLU (Gu and Dao 2023, figure 3), in two implementations."""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init

from .conv_cpu_fftp import causal_conv_silu_cpu, load_conv_kernel
from .kernel_cpu_fftp import find_device, require_kernel
from .tracing_fftp import takes_other_derivatives


class FFTPCausalConv1d(nn.Module):
    """SiLU of a depthwise convolution that sees the present and the past, or with `reverse` the future.

    The kernel computes both in one pass, so this is no `nn.Conv1d`: what others add to one must come before the SiLU.

    Args:
        channels: Width of the sequence.
        kernel_size: Width of the filters in tokens.
        reverse: Whether time runs backwards.
        implementation: See `causal_conv_silu`.
    """

    def __init__(self, channels: int, kernel_size: int, reverse: bool = False, implementation: str = "auto"):
        super().__init__()
        self.reverse = reverse
        self.implementation = implementation
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels))
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Initial values: those of torch's convolution, and no bias."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, tokens) to the same shape."""
        return causal_conv_silu(x, self.weight, self.bias, self.reverse, self.implementation)

    def extra_repr(self) -> str:
        """Shape and direction, for printing."""
        channels, _, kernel_size = self.weight.shape
        return f"{channels}, kernel_size={kernel_size}, reverse={self.reverse}"


def causal_conv_silu(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, reverse: bool = False, implementation: str = "auto"
) -> torch.Tensor:
    """SiLU of a depthwise convolution that sees the present and the past, or with `reverse` the future.

    Args:
        x: (batch, channels, tokens).
        weight: (channels, 1, width); the last element is that of the present.
        bias: (channels,).
        reverse: Whether time runs backwards.
        implementation: "torch" (runs anywhere), "cpu" (fused C kernel that computes in float32), or "auto": on a CPU
            cpu, else torch, also for float64, in an export, in forward mode and in torch.func.

    Returns:
        (batch, channels, tokens), in the dtype of `x`.

    Raises:
        ImportError: The C kernel could not be built.
        ValueError: An unknown implementation, one without the derivatives that are taken, or tensors on several
            devices or one that it cannot run on.
    """
    if implementation not in ("auto", "torch", "cpu"):
        raise ValueError(f"implementation={implementation!r} is unknown; expected 'auto', 'torch' or 'cpu'")
    device = find_device(x, weight, bias)
    other_derivatives = takes_other_derivatives()
    if implementation == "cpu" and other_derivatives:
        raise ValueError("implementation='cpu' has no derivatives but backward(); expected 'auto' or 'torch'")
    if implementation == "cpu" and not torch.compiler.is_compiling():
        require_kernel(load_conv_kernel(), device)
    if implementation == "auto" and not torch.compiler.is_exporting() and not other_derivatives:
        is_double = x.dtype == torch.float64
        implementation = "cpu" if device.type == "cpu" and not is_double and _has_kernel() else "torch"
    return (causal_conv_silu_cpu if implementation == "cpu" else causal_conv_silu_ref)(x, weight, bias, reverse)


@torch.compiler.assume_constant_result
def _has_kernel() -> bool:
    return load_conv_kernel() is not None


def causal_conv_silu_ref(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, reverse: bool = False
) -> torch.Tensor:
    """The same in plain torch: a sum of shifted sequences, which is faster than torch's grouped convolution."""
    width, num_tokens = weight.shape[-1], x.shape[2]
    padded = functional.pad(x, (0, width - 1) if reverse else (width - 1, 0))
    output = bias.to(x.dtype)[:, None]
    for offset, tap in enumerate(weight.to(x.dtype).unbind(dim=-1)):
        start = width - 1 - offset if reverse else offset
        output = torch.addcmul(output, padded[..., start : start + num_tokens], tap)
    return functional.silu(output)
