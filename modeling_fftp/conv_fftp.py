"""The short causal convolution of Mamba with its SiLU (Gu and Dao 2023, figure 3), in two implementations."""

import torch
from torch.nn import functional

from .conv_cpu_fftp import causal_conv_silu_cpu, load_conv_kernel


def causal_conv_silu(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, reverse: bool = False, implementation: str = "auto"
) -> torch.Tensor:
    """SiLU of a depthwise convolution that sees the present and the past, or with `reverse` the future.

    Args:
        x: (batch, tokens, channels).
        weight: (channels, 1, width); the last element is that of the present.
        bias: (channels,).
        reverse: Whether time runs backwards.
        implementation: "torch" (runs anywhere), "cpu" (fused C kernel), or "auto": on a CPU cpu, else torch.

    Returns:
        (batch, tokens, channels), in the dtype of `x`.

    Raises:
        ValueError: An unknown implementation.
    """
    if implementation not in ("auto", "torch", "cpu"):
        raise ValueError(f"implementation={implementation!r} is unknown; expected 'auto', 'torch' or 'cpu'")
    if implementation == "cpu" or (implementation == "auto" and x.device.type == "cpu" and _has_kernel()):
        return causal_conv_silu_cpu(x, weight, bias, reverse)
    return causal_conv_silu_ref(x, weight, bias, reverse)


@torch.compiler.assume_constant_result
def _has_kernel() -> bool:
    return load_conv_kernel() is not None


def causal_conv_silu_ref(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, reverse: bool = False
) -> torch.Tensor:
    """The same in plain torch: a sum of shifted sequences, which is faster than torch's grouped convolution."""
    width, num_tokens = weight.shape[-1], x.shape[1]
    padded = functional.pad(x, (0, 0, 0, width - 1) if reverse else (0, 0, width - 1, 0))
    output = bias.to(x.dtype)
    for offset, tap in enumerate(weight[:, 0].to(x.dtype).unbind(dim=-1)):
        start = width - 1 - offset if reverse else offset
        output = torch.addcmul(output, padded[:, start : start + num_tokens], tap)
    return functional.silu(output)
