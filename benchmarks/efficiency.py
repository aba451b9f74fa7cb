"""What FFTP costs against square patches and transformers' AST: counts, time, memory, share of the machine's peak.

    python -m benchmarks.efficiency            # measure everything, then report; hours on 2 cores
    python -m benchmarks.efficiency --report   # report what was measured
    python -m benchmarks.efficiency --sizes tiny --seconds 10 --output FOLDER   # a part of it, elsewhere

Weights are random, since they do not change the time. All that stands in one column of a table runs in turn, round
after round. Nothing else should run on the machine.
"""

import argparse
import gc
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, pipeline
from transformers.utils import is_speech_available

from benchmarks.efficiency_report import BASELINE, INT8, PEAK, write_report
from benchmarks.report import RESULTS
from benchmarks.timing import peak_memory, summarise, time_in_turn
from feature_extraction import FFTPFeatureExtractor
from feature_extraction.log_mel_fftp import num_frames
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.efficiency import count_flops, describe_machine, multiply_adds
from modeling_fftp.export import export
from modeling_fftp.onnx_model import FFTPOnnxForAudioClassification

RATE = 16000
LABELS = 527

# Width and heads; the depth is 12 blocks of AST or 24 of AuM.
SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
SQUARE = {"patch_size": (16, 16)}
AUM = {"backbone": "mamba", "num_hidden_layers": 24, "layer_norm_eps": 1e-5}
MODELS = {
    "AST, square 16/10": SQUARE | {"frequency_stride": 10, "time_stride": 10},
    "FFTP-AST, stride 1": {"time_stride": 1},
    "FFTP-AST, stride 5": {"time_stride": 5},
    "FFTP-AST, stride 10, 50 frames": {"patch_size": (128, 50), "time_stride": 10},
    "FFTP-AST, stride 20, 100 frames": {"patch_size": (128, 100), "time_stride": 20},
    "AuM, square 16/16": AUM | SQUARE | {"frequency_stride": 16, "time_stride": 16},
    "FFTP-AuM, stride 5": AUM | {"time_stride": 5},
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Models to run from ONNX files as well; the scans of the others would run there as ONNX's general `Scan`.
EXPORTED = tuple(name for name in MODELS if name.startswith("FFTP-AST"))

PEAK_WIDTH = 4096
BATCHES = (1, 16)
CLIP_SECONDS = (1.0, 5.0, 10.0, 30.0)
REFERENCE_SECONDS = 10.0
# A square base model takes minutes for 16 clips of 30 s.
LONGEST_IN_BATCH = 10
# Clips in a training step: a square base model at 16 does not fit into 24 GB.
TRAIN_BATCH = {"tiny": 16, "small": 16, "base": 4}


def build_model(name: str, size: str) -> torch.nn.Module:
    """A model with random weights, in evaluation mode."""
    width, heads = SIZES[size]
    shape = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width, "num_labels": LABELS}
    if name == BASELINE:
        return ASTForAudioClassification(ASTConfig(**shape)).eval()
    return FFTPForAudioClassification(FFTPConfig(**shape, **MODELS[name])).eval()


def make_features(name: str, seconds: float, batch: int) -> torch.Tensor:
    """What the model's extractor gives for clips of so many seconds; transformers' AST always gets 1024 frames."""
    frames = 1024 if name == BASELINE else num_frames(round(seconds * RATE), RATE)
    return torch.randn(batch, frames, 128)


def count(name: str, size: str, seconds: float) -> dict[str, int]:
    """Parameters, tokens, multiply-adds (linear layers, as the paper counts) and FLOPs of one clip."""
    frames = num_frames(round(seconds * RATE), RATE)
    is_baseline = name == BASELINE
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build_model(name, size).parameters())
        if is_baseline:
            # The same model, always on the 1024 frames that its extractor pads or cuts to.
            name, frames = "AST, square 16/10", 1024
        config = build_model(name, size).config
    return {
        "parameters": parameters,
        "tokens": config.patch_grid[0] * config.time_patches(frames),
        "multiply_adds": multiply_adds(config, frames),
        "flops": sum(count_flops(config, frames, whole=is_baseline).values()),
    }


def forward(name: str, size: str, seconds: float, batch: int, precision: str = "float32") -> Callable[[], object]:
    """A forward pass."""
    dtype = PRECISIONS[precision]
    model, features = build_model(name, size).to(dtype), make_features(name, seconds, batch).to(dtype)
    return lambda: run(model, features)


@torch.inference_mode()
def run(model: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Logits."""
    return model(features).logits


def training_steps(name: str, size: str, seconds: float, batch: int) -> dict[str, Callable[[], object]]:
    """Forward, backward and update by fused AdamW, by precision; weights stay float32."""
    model, features = build_model(name, size).train(), make_features(name, seconds, batch)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step(precision: str) -> None:
        compute_gradients(model, features, precision)
        optimizer.step()
        optimizer.zero_grad()

    return {precision: partial(step, precision) for precision in PRECISIONS}


def training_step(name: str, size: str, seconds: float, batch: int) -> Callable[[], object]:
    """The step in float32."""
    return training_steps(name, size, seconds, batch)["float32"]


def forward_backward(name: str, size: str, seconds: float, batch: int, checkpointing: bool) -> Callable[[], object]:
    """A forward and a backward pass in float32, with or without gradient checkpointing."""
    model, features = build_model(name, size).train(), make_features(name, seconds, batch)
    if checkpointing:
        model.gradient_checkpointing_enable()

    def call() -> None:
        model.zero_grad()
        compute_gradients(model, features, "float32")

    return call


def compute_gradients(model: torch.nn.Module, features: torch.Tensor, precision: str) -> None:
    """A forward and a backward pass, as if every clip were of the first class."""
    labels = torch.zeros(len(features), dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        loss = torch.nn.functional.cross_entropy(model(features).logits.float(), labels)
    loss.backward()


def classify(name: str, size: str, seconds: float, precision: str = "float32") -> Callable[[], object]:
    """The pipeline on one clip, sound to labels; it takes its precision from the model."""
    extractor = ASTFeatureExtractor() if name == BASELINE else FFTPFeatureExtractor()
    model = build_model(name, size).to(PRECISIONS[precision])
    return partial(pipeline("audio-classification", model=model, feature_extractor=extractor), make_sound(seconds))


@cache
def build_onnx_model(name: str, size: str) -> FFTPOnnxForAudioClassification:
    """The model as an ONNX file with int8 weights."""
    model = build_model(name, size)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        FFTPFeatureExtractor().save_pretrained(folder)
        return FFTPOnnxForAudioClassification(export(folder, int8=True), model.config)


def classify_int8(name: str, size: str, seconds: float) -> Callable[[], object]:
    """The pipeline on one clip with int8 weights."""
    model = build_onnx_model(name, size)
    classify_clip = pipeline("audio-classification", model=model, feature_extractor=FFTPFeatureExtractor())
    return with_one_torch_thread(partial(classify_clip, make_sound(seconds)))


def with_one_torch_thread(call: Callable[[], object]) -> Callable[[], object]:
    """The call, with the processors left to onnxruntime's threads."""
    threads = torch.get_num_threads()

    def call_alone() -> object:
        torch.set_num_threads(1)
        try:
            return call()
        finally:
            torch.set_num_threads(threads)

    return call_alone


def extract(name: str, seconds: float, batch: int) -> Callable[[], object]:
    """The feature extractor on a list of clips."""
    extractor = ASTFeatureExtractor() if name == BASELINE else FFTPFeatureExtractor()
    return partial(extractor, [make_sound(seconds)] * batch, sampling_rate=RATE, return_tensors="pt")


def make_sound(seconds: float) -> np.ndarray:
    """Noise."""
    return (0.1 * np.random.default_rng(0).normal(size=round(seconds * RATE))).astype(np.float32)


def multiply_matrices(precision: str) -> Callable[[], object]:
    """The product that the machine's peak is measured by."""
    matrix = torch.randn(PEAK_WIDTH, PEAK_WIDTH).to(PRECISIONS[precision])
    return lambda: matrix @ matrix


def measure_group(group: dict, calls: dict[tuple[str, str], Callable], seconds: float) -> list[dict]:
    """Times of calls in turn, by contender and precision, as records of the group; empties `calls`."""
    times = time_in_turn(calls, seconds)
    # Before the models of the next group are built.
    calls.clear()
    gc.collect()
    print(group, flush=True)
    return [
        group | {"model": name, "precision": precision} | summarise(taken)
        for (name, precision), taken in times.items()
    ]


def measure_extractors(clip_seconds: list[float], seconds: float) -> Iterator[list[dict]]:
    """Records of ours and of transformers' extractor."""
    for clip in clip_seconds:
        for batch in BATCHES:
            calls = {(name, "float32"): extract(name, clip, batch) for name in (BASELINE, "FFTP")}
            yield measure_group({"what": "extractor", "seconds": clip, "batch": batch}, calls, seconds)


def measure_size(size: str, clip_seconds: list[float], seconds: float) -> Iterator[list[dict]]:
    """Records of models of a size, group by group."""
    for clip in clip_seconds:
        for batch in BATCHES if clip <= LONGEST_IN_BATCH else BATCHES[:1]:
            # transformers' AST takes the same time for every length.
            names = (BASELINE, *MODELS) if clip == REFERENCE_SECONDS else MODELS
            calls = {
                (name, precision): forward(name, size, clip, batch, precision)
                for name in names
                for precision in PRECISIONS
            } | {(PEAK, precision): multiply_matrices(precision) for precision in PRECISIONS}
            yield measure_group({"what": "forward", "size": size, "seconds": clip, "batch": batch}, calls, seconds)
        calls = {
            (name, precision): classify(name, size, clip, precision)
            for name in (BASELINE, *MODELS)
            for precision in PRECISIONS
        } | {(name, INT8): classify_int8(name, size, clip) for name in EXPORTED}
        # What a user waits for: more rounds.
        yield measure_group({"what": "pipeline", "size": size, "seconds": clip, "batch": 1}, calls, 3 * seconds)
    build_onnx_model.cache_clear()
    batch = TRAIN_BATCH[size]
    calls = {
        (name, precision): step
        for name in MODELS
        for precision, step in training_steps(name, size, REFERENCE_SECONDS, batch).items()
    }
    group = {"what": "training step", "size": size, "seconds": REFERENCE_SECONDS, "batch": batch}
    yield measure_group(group, calls, seconds)


def measure(sizes: list[str], clip_seconds: list[float], seconds: float, path: Path) -> None:
    """Measure group by group; the file holds what there is after each."""
    results = {
        "machine": describe_machine() | {"torchaudio": is_speech_available()},
        "peak_flops": 2 * PEAK_WIDTH**3,
        "counts": [
            {"model": name, "size": size, "seconds": clip} | count(name, size, clip)
            for size in sizes
            for clip in clip_seconds
            for name in (BASELINE, *MODELS)
        ],
        "records": [],
        "memory": [],
    }
    groups = chain(
        measure_extractors(clip_seconds, seconds), *(measure_size(size, clip_seconds, seconds) for size in sizes)
    )
    for records in groups:
        results["records"] += records
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for size in sizes:
        for name in MODELS:
            for what, build, batch in (("forward", forward, 16), ("training step", training_step, TRAIN_BATCH[size])):
                mib = peak_memory(build, name, size, REFERENCE_SECONDS, batch)
                results["memory"].append({"what": what, "model": name, "size": size, "batch": batch, "mib": mib})
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=[*SIZES], choices=SIZES)
    parser.add_argument("--seconds", nargs="+", type=float, default=[*CLIP_SECONDS], help="lengths of the clips")
    parser.add_argument("--seconds_per_group", type=float, default=20.0, help="beyond three rounds")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if REFERENCE_SECONDS not in arguments.seconds:
        parser.error(f"--seconds {arguments.seconds} lacks {REFERENCE_SECONDS}, the length that all tables refer to")
    is_part = [*arguments.sizes] != [*SIZES] or [*arguments.seconds] != [*CLIP_SECONDS]
    if arguments.output == RESULTS and is_part and not arguments.report:
        parser.error("a part of the measurements would replace the kept results; name another folder by --output")
    path = arguments.output / "efficiency.json"
    if not arguments.report:
        measure(arguments.sizes, arguments.seconds, arguments.seconds_per_group, path)
    write_report(json.loads(path.read_text(encoding="utf-8")), arguments.output)


if __name__ == "__main__":
    main()
