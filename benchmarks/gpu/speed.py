"""How fast a GPU is: forward passes of base models, the feature extractor, and the selective scan."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import torch

from benchmarks.efficiency import (
    BASELINE,
    CONTENDERS,
    PEAK_WIDTH,
    PRECISIONS,
    RATE,
    REFERENCE_SECONDS,
    build_model,
    count,
    make_features,
    make_sound,
)  # fmt: skip
from benchmarks.gpu.setting import Setting, make_scan_inputs
from feature_extraction import FFTPFeatureExtractor
from modeling_fftp.scan_fftp import selective_scan, selective_scan_fn

# How a model runs. A CUDA graph holds the launches of all kernels; one clip's kernels take less time than those.
EAGER, GRAPH, COMPILED, BOTH = "eager", "CUDA graph", "compiled", "compiled, CUDA graph"
# Precision, batch and ways, what matters most first. Compiling takes half a minute each, so it has fewer models.
GROUPS = (
    ("bfloat16", 64, (EAGER,)), ("bfloat16", 1, (EAGER, GRAPH)), ("float32", 64, (EAGER,)), ("float32", 1, (EAGER,)),
    ("bfloat16", 64, (COMPILED,)), ("bfloat16", 1, (BOTH,)),
)  # fmt: skip
MODELS_TO_COMPILE = (BASELINE, "AST, square 16/10", "FFTP-AST, stride 1", "FFTP-AST, stride 5", "FFTP-AuM, stride 5")
REHEARSED = "FFTP-AST, stride 5"
TOKENS = (24, 49, 199, 991)
PEAK = "matrix product"
# What features are measured of: 64 clips of 10 s.
EXTRACTED = 64


def list_cases(setting: Setting) -> dict[str, Callable[[], dict]]:
    """Measurements by name, what matters most first."""
    cases = {f"{PEAK}, {precision}": partial(measure_peak, setting, precision) for precision in PRECISIONS}
    for precision, batch, modes in GROUPS:
        for mode in modes:
            for name in choose_models(setting, mode):
                cases[f"{name}, {precision}, batch {batch}, {mode}"] = partial(
                    measure_forward, setting, name, precision, batch, mode
                )
    cases |= {f"scan, {tokens} tokens": partial(measure_scan, setting, tokens) for tokens in TOKENS}
    return cases | {
        f"features on {where}": partial(measure_features, setting, where) for where in ("the CPU", "the device")
    }


def choose_models(setting: Setting, mode: str) -> Sequence[str]:
    """The models that are measured in a mode."""
    if mode in (GRAPH, BOTH) and setting.device.type == "cpu":
        return ()
    if setting.is_tiny:
        return (REHEARSED,)
    return MODELS_TO_COMPILE if mode in (COMPILED, BOTH) else CONTENDERS


def measure_peak(setting: Setting, precision: str) -> dict:
    """FLOPs per second of a large matrix product."""
    width = 256 if setting.is_tiny else 2 * PEAK_WIDTH
    matrix = torch.randn(width, width, device=setting.device).to(PRECISIONS[precision])
    milliseconds = setting.milliseconds({PEAK: lambda: matrix @ matrix})[PEAK]
    return {"kind": "peak", "precision": precision, "tflops": 2 * width**3 / milliseconds / 1e9}


def measure_forward(setting: Setting, name: str, precision: str, batch: int, mode: str) -> dict:
    """Time, memory and FLOPs per second of a forward pass on clips of 10 s."""
    size, dtype = ("tiny" if setting.is_tiny else "base"), PRECISIONS[precision]
    batch = min(batch, 2) if setting.is_tiny else batch
    # Random weights are drawn faster there.
    with setting.device:
        model = build_model(name, size).to(dtype)
        features = make_features(name, REFERENCE_SECONDS, batch).to(dtype)
    call = build_call(model, features, mode)
    milliseconds = setting.milliseconds({name: call})[name]
    return {
        "kind": "forward", "model": name, "size": size, "precision": precision, "batch": batch, "mode": mode,
        "milliseconds": milliseconds, "clips_per_second": 1000 * batch / milliseconds,
        # Replays allocate nothing.
        "gib": setting.peak_gib(call) if mode in (EAGER, COMPILED) else None,
        "tflops": batch * count_flops(name, size) / milliseconds / 1e9,
    }  # fmt: skip


@lru_cache
def count_flops(name: str, size: str) -> int:
    """FLOPs of one clip; the scans of a Mamba are not counted."""
    return count(name, size, REFERENCE_SECONDS)["flops"]


def build_call(model: torch.nn.Module, features: torch.Tensor, mode: str) -> Callable[[], torch.Tensor]:
    """A forward pass in one of the modes."""
    if mode in (COMPILED, BOTH):
        model.compile(mode="reduce-overhead" if mode == BOTH else "default")
    call = torch.inference_mode()(lambda: model(features).logits)
    return capture(call) if mode == GRAPH else call


def capture(call: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """A replay of all kernels of a call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # What is compiled or chosen at the first calls must not be in the graph.
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call()

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay


def measure_features(setting: Setting, where: str) -> dict:
    """Clips per second of the extractor on clips of 10 s."""
    device = setting.device if where == "the device" else torch.device("cpu")
    count_of_clips = 2 if setting.is_tiny else EXTRACTED
    clips = [torch.from_numpy(make_sound(REFERENCE_SECONDS)).to(device)] * count_of_clips
    extractor = FFTPFeatureExtractor()
    milliseconds = setting.milliseconds({where: lambda: extractor.extract_batch(clips)})[where]
    return {
        "kind": "features", "where": where, "clips_per_second": 1000 * count_of_clips / milliseconds,
        "threads": torch.get_num_threads() if device.type == "cpu" else None, "rate": RATE,
    }  # fmt: skip


def measure_scan(setting: Setting, tokens: int) -> dict:
    """Milliseconds of the scan of a base block, batch 64, without and with its backward pass, and of mamba-ssm's."""
    batch, dim, state = (1, 8, 4) if setting.is_tiny else (64, 1536, 16)
    inputs = make_scan_inputs(setting.device, batch, dim, tokens, state, torch.bfloat16)
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    scans = {"ours": selective_scan} | ({} if selective_scan_fn is None else {"mamba-ssm": selective_scan_fn})

    def both(scan: Callable) -> None:
        torch.autograd.grad(scan(**leaves, delta_softplus=True).float().sum(), list(leaves.values()))

    calls = {f"{name}, forward": partial(scan, **inputs, delta_softplus=True) for name, scan in scans.items()}
    calls |= {f"{name}, forward + backward": partial(both, scan) for name, scan in scans.items()}
    return {"kind": "scan", "tokens": tokens, "milliseconds": setting.milliseconds(calls)}
