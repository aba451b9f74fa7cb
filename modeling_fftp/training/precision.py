"""Which precision a machine trains faster in."""

import torch


def gains_from_bfloat16(on_cpu: bool) -> bool:
    """Whether products in bfloat16 take less time than those in float32.

    Without instructions for them they are emulated, several times slower. Of the processors with `avx512_bf16` Intel's
    are an exception: they gain only with AMX, which virtual machines often hide, and otherwise take longer than in
    float32 (`benchmarks/results/training.md`).

    Args:
        on_cpu: Whether the CPU computes, or else the current CUDA device.
    """
    if not on_cpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    is_intel = capabilities.get("cpu_name", "").startswith("Intel")
    useful = ("amx_bf16",) if is_intel else ("amx_bf16", "avx512_bf16", "bf16")
    return any(capabilities.get(name, False) for name in useful)
