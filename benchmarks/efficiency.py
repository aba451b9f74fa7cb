"""What FFTP costs against square patches and transformers' AST: counts, time, memory, share of the machine's peak.

    python -m benchmarks.efficiency            # measure everything, then report; hours on 2 cores
    python -m benchmarks.efficiency --resume   # go on with a run that was stopped
    python -m benchmarks.efficiency --report   # report what was measured
    python -m benchmarks.efficiency --sizes tiny --seconds 10 --output FOLDER   # a part of it, elsewhere

Weights are random, since they do not change the time. What a column of a table compares runs in turn, round after
round. Nothing else should run on the machine.
"""

import argparse
import gc
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, pipeline
from transformers.utils import is_speech_available

from benchmarks.efficiency_report import BASELINE, INT8, PEAK, write_report
from benchmarks.report import RESULTS, describe_machine, write_json
from benchmarks.timing import peak_memory, summarise, time_in_turn
from feature_extraction import FFTPFeatureExtractor
from feature_extraction.log_mel_fftp import num_frames
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.hub.efficiency import count_flops, multiply_adds
from modeling_fftp.memory import keep_freed_memory
from modeling_fftp.serving.export import export
from modeling_fftp.serving.onnx_model import FFTPOnnxForAudioClassification

RATE = 16000
LABELS = 527

# Width and heads; the depth is 12 blocks of AST, 18 of ConvNeXt or 24 of AuM.
SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
SQUARE = {"patch_size": (16, 16)}
CONVNEXT = {"backbone": "convnext", "num_hidden_layers": 18}
AUM = {"backbone": "mamba", "num_hidden_layers": 24}
MODELS = {
    "AST, square 16/10": SQUARE | {"frequency_stride": 10, "time_stride": 10},
    "FFTP-AST, stride 1": {"time_stride": 1},
    "FFTP-AST, stride 5": {"time_stride": 5},
    "FFTP-AST, stride 5, merged": {"time_stride": 5, "token_merge_layers": (3,)},
    "FFTP-AST, stride 10, 50 frames": {"patch_size": (128, 50), "time_stride": 10},
    "FFTP-AST, stride 20, 100 frames": {"patch_size": (128, 100), "time_stride": 20},
    "ConvNeXt, square 16/10": CONVNEXT | SQUARE | {"frequency_stride": 10, "time_stride": 10},
    "FFTP-ConvNeXt, stride 5": CONVNEXT | {"time_stride": 5},
    "AuM, square 16/16": AUM | SQUARE | {"frequency_stride": 16, "time_stride": 16},
    "FFTP-AuM, stride 5": AUM | {"time_stride": 5},
}
CONTENDERS = (BASELINE, *MODELS)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Models to run from ONNX files as well; the scans of a Mamba would run there as ONNX's general `Scan`.
EXPORTED = tuple(name for name in MODELS if "AuM" not in name)

# What to time, by model and precision.
Calls = dict[tuple[str, str], Callable[[], object]]

PEAK_WIDTH = 4096
BATCHES = (1, 16)
CLIP_SECONDS = (1.0, 5.0, 10.0, 30.0)
REFERENCE_SECONDS = 10.0
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


@lru_cache(maxsize=len(EXPORTED))
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


def build_extractors(seconds: float, batch: int) -> Calls:
    """Ours and transformers' extractor."""
    return {(name, "float32"): extract(name, seconds, batch) for name in (BASELINE, "FFTP")}


def build_forwards(size: str, seconds: float, batch: int) -> Calls:
    """Forward passes, and the matrix product that they are compared with."""
    # transformers' AST takes the same time for every length.
    names = CONTENDERS if seconds == REFERENCE_SECONDS else MODELS
    calls = {
        (name, precision): forward(name, size, seconds, batch, precision) for name in names for precision in PRECISIONS
    }
    return calls | {(PEAK, precision): multiply_matrices(precision) for precision in PRECISIONS}


def build_pipelines(size: str, seconds: float) -> Calls:
    """Sound to labels."""
    calls = {
        (name, precision): classify(name, size, seconds, precision) for name in CONTENDERS for precision in PRECISIONS
    }
    return calls | {(name, INT8): classify_int8(name, size, seconds) for name in EXPORTED}


def build_training_steps(size: str, seconds: float, batch: int) -> Calls:
    """Training steps."""
    return {
        (name, precision): step
        for name in CONTENDERS
        for precision, step in training_steps(name, size, seconds, batch).items()
    }


def list_groups(sizes: list[str], clip_seconds: list[float]) -> Iterator[tuple[dict, Callable[[], Calls]]]:
    """What runs in turn: what its records have in common, and how its calls are built."""
    for clip in clip_seconds:
        for batch in BATCHES:
            yield {"what": "extractor", "seconds": clip, "batch": batch}, partial(build_extractors, clip, batch)
    for size in sizes:
        for clip in clip_seconds:
            # 16 clips of 30 s would take as long as everything else.
            for batch in BATCHES if clip == REFERENCE_SECONDS else BATCHES[:1]:
                group = {"what": "forward", "size": size, "seconds": clip, "batch": batch}
                yield group, partial(build_forwards, size, clip, batch)
            yield (
                {"what": "pipeline", "size": size, "seconds": clip, "batch": 1},
                partial(build_pipelines, size, clip),
            )
        group = {"what": "training step", "size": size, "seconds": REFERENCE_SECONDS, "batch": TRAIN_BATCH[size]}
        yield group, partial(build_training_steps, size, REFERENCE_SECONDS, TRAIN_BATCH[size])


def measure_group(group: dict, build: Callable[[], Calls], seconds: float) -> list[dict]:
    """Times of calls in turn, by contender and precision, as records of the group."""
    # int8 changes its speed from one minute to the next, so pipelines get more rounds.
    times = time_in_turn(build(), 15 * seconds if group["what"] == "pipeline" else seconds)
    # Before the models of the next group are built.
    gc.collect()
    print(group, flush=True)
    return [
        group | {"model": name, "precision": precision} | summarise(taken)
        for (name, precision), taken in times.items()
    ]


def start(sizes: list[str], clip_seconds: list[float]) -> dict:
    """Results before any time is taken."""
    return {
        "machine": describe_machine() | {"torchaudio": is_speech_available()},
        "peak_flops": 2 * PEAK_WIDTH**3,
        "counts": [
            {"model": name, "size": size, "seconds": clip} | count(name, size, clip)
            for size in sizes
            for clip in clip_seconds
            for name in CONTENDERS
        ],
        "records": [],
        "memory": [],
    }


def measure(results: dict, sizes: list[str], clip_seconds: list[float], seconds: float, path: Path) -> None:
    """Measure what the results lack, group by group; the file holds what there is after each."""
    # First, as this process keeps the memory of what it timed, and its children need their own.
    for size, name in product(sizes, CONTENDERS):
        for what, build, batch in (("forward", forward, 16), ("training step", training_step, TRAIN_BATCH[size])):
            record = {"what": what, "model": name, "size": size, "batch": batch}
            if not any(record.items() <= item.items() for item in results["memory"]):
                results["memory"].append(record | {"mib": peak_memory(build, name, size, REFERENCE_SECONDS, batch)})
                write_json(path, results)
    for group, build in list_groups(sizes, clip_seconds):
        if not any(group.items() <= record.items() for record in results["records"]):
            results["records"] += measure_group(group, build, seconds)
            write_json(path, results)


def resume(path: Path) -> dict:
    """Results so far.

    Raises:
        ValueError: They are those of another machine, of other versions, or of other models, or this machine is
            not as fast now.
    """
    results = json.loads(path.read_text(encoding="utf-8"))
    here = describe_machine()
    if not here.items() <= results["machine"].items():
        raise ValueError(f"{path} was measured on {results['machine']}; this is {here}")
    measured = {item["model"] for item in results["counts"]}
    if measured != {*CONTENDERS}:
        raise ValueError(f"{path} has the models {sorted(measured)}; expected {sorted(CONTENDERS)}")
    refuse_other_speed(results["records"])
    return results


def refuse_other_speed(records: list[dict]) -> None:
    """Stop where a matrix product takes another time than it did: machines of one name may share their processor.

    Raises:
        ValueError: It takes a quarter longer or shorter.
    """
    for precision in PRECISIONS:
        kept = [item["median_ms"] for item in records if (item["model"], item["precision"]) == (PEAK, precision)]
        if kept:
            (times,) = time_in_turn({PEAK: multiply_matrices(precision)}, 0.0).values()
            now, then = summarise(times)["median_ms"], statistics.median(kept)
            if not 0.8 < now / then < 1.25:
                raise ValueError(
                    f"the {PEAK} in {precision} took {then:.3g} ms, and takes {now:.3g} ms now; measure anew"
                )


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=[*SIZES], choices=SIZES)
    parser.add_argument("--seconds", nargs="+", type=float, default=[*CLIP_SECONDS], help="lengths of the clips")
    parser.add_argument(
        "--seconds_per_group",
        type=float,
        default=20.0,
        help="3 to 15 rounds that fit into this; pipelines have 15 times as much",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of results, made where it is missing")
    parser.add_argument("--resume", action="store_true", help="keep what the folder of results holds")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if REFERENCE_SECONDS not in arguments.seconds:
        parser.error(f"--seconds {arguments.seconds} lacks {REFERENCE_SECONDS}, the length that all tables refer to")
    is_part = [*arguments.sizes] != [*SIZES] or [*arguments.seconds] != [*CLIP_SECONDS]
    is_new = not (arguments.resume or arguments.report)
    if arguments.output.resolve() == RESULTS.resolve() and is_part and is_new:
        parser.error("a part of the measurements would replace the kept results; name another folder by --output")
    if is_new:
        arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "efficiency.json"
    if arguments.report:
        results = json.loads(path.read_text(encoding="utf-8"))
    else:
        # Else glibc returns large tensors to the system, and whether it does depends on what ran before.
        keep_freed_memory()
        results = resume(path) if arguments.resume else start(arguments.sizes, arguments.seconds)
        measure(results, arguments.sizes, arguments.seconds, arguments.seconds_per_group, path)
    write_report(results, arguments.output)


if __name__ == "__main__":
    main()
