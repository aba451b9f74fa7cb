"""What a model costs: parameters, multiply-adds, FLOPs and time."""

import platform
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from feature_extraction import FFTPFeatureExtractor
from modeling_fftp.configuration_fftp import FFTPConfig
from modeling_fftp.heads_fftp import CLIPS, find_saved_task
from modeling_fftp.modeling_fftp import CLASSIFIERS

# Processors of one model name differ in these, and by a multiple in speed: torch's names for them.
MATRIX_UNITS = {"AVX-512": "avx512_f", "bfloat16": "avx512_bf16", "VNNI": "avx512_vnni", "AMX": "amx_tile"}

# Measurements of a time, of which the median is taken.
ROUNDS = 9
# Settings of a model that is measured or explained, in place of those of its training.
ON_CPU = {"attn_implementation": "sdpa", "scan_implementation": "auto", "dtype": torch.float32}


def count_flops(config: FFTPConfig, frames: int, whole: bool = False) -> dict[str, int]:
    """Floating-point operations of one clip of so many frames by torch's operator names, attention included.

    The selective scan is no matrix product and is left out.

    Args:
        config: The model's config.
        frames: Frames of the clip.
        whole: Whether to count every layer over every token, also where the classifier skips what it does not read.
    """
    with torch.device("meta"):
        model = CLASSIFIERS[find_saved_task(config) or CLIPS](config).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, frames, config.num_mel_bins), output_hidden_states=whole)
    return {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}


def multiply_adds(config: FFTPConfig, frames: int) -> int:
    """Multiply-adds of linear layers and convolutions for one clip of so many frames; attention is left out.

    So the paper counts linear layers. The patch embedding is one over patches; every layer counts over every token.
    The convolutions of a Mamba are left out with its scan.
    """
    return sum_multiply_adds(count_flops(config, frames, whole=True))


def sum_multiply_adds(flops: dict[str, int]) -> int:
    """Multiply-adds of linear layers and convolutions, of FLOPs by operator."""
    return sum(flops.get(name, 0) for name in ("aten.addmm", "aten.mm", "aten.convolution")) // 2


def describe_machine() -> dict[str, str | int]:
    """Processor with what it has for matrix products, threads and torch's version."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor, capabilities = models[0] if models else platform.processor(), torch.cpu.get_capabilities()
    units = ", ".join(name for name, capability in MATRIX_UNITS.items() if capabilities.get(capability))
    return {
        "processor": f"{processor} ({units})" if units else processor,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def measure_efficiency(folder: str | Path, seconds: float, time_stride: int | None = None) -> dict:
    """Cost of one clip: as counted, and as measured on this machine's CPU in float32, features included.

    Args:
        folder: With a model and its feature extractor.
        seconds: Length of the clip.
        time_stride: Frames between patches; None is the model's.
    """
    settings = ON_CPU | ({} if time_stride is None else {"time_stride": time_stride})
    task = find_saved_task(FFTPConfig.from_pretrained(folder))
    model = CLASSIFIERS[task or CLIPS].from_pretrained(folder, **settings).eval()
    extractor = FFTPFeatureExtractor.from_pretrained(folder)
    config, clip, times = model.config, torch.zeros(round(seconds * extractor.sampling_rate)), []
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            features = extractor(clip, sampling_rate=extractor.sampling_rate, return_tensors="pt")
            model(**features)
            times.append(time.perf_counter() - started)
    # What the model computes, with what the extractor pads.
    frames = features["input_values"].shape[1]
    flops = count_flops(config, frames, whole=True)
    return {
        "seconds": seconds,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": config.frequency_patches * config.time_patches(frames),
        "multiply_adds": sum_multiply_adds(flops),
        "flops": sum(flops.values()),
        "milliseconds": 1000 * statistics.median(times[1:]),
        "machine": describe_machine(),
    }
