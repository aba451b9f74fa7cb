"""Ways to run one model on a CPU: time of the pipeline, and what each costs in accuracy and disk.

    python -m benchmarks.inference FOLDER --dataset_name DATA --merging FOLDER

The first FOLDER is a trained model, the second one trained with `token_merge_layers`, DATA a data set whose validation
split they are tried on. Besides, a base model with random weights on clips of 1 s and 10 s, beside transformers' AST,
and recordings of mixed lengths in batches: in their order, and sorted by length.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from torch._dynamo import config as dynamo
from torch._inductor import config as inductor
from transformers import Pipeline, pipeline

from benchmarks.efficiency import REFERENCE_SECONDS, classify, forward, make_sound, with_one_torch_thread
from benchmarks.efficiency_report import BASELINE
from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import in_new_process, time_in_turn
from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.memory import keep_freed_memory
from modeling_fftp.serving.export import default_file_name, export
from modeling_fftp.serving.onnx_model import FFTPOnnxForAudioClassification
from modeling_fftp.training.data.sources import find_column, load_splits

MERGED_LAYERS = (3,)
COMPILED, INT8 = "bfloat16, compiled", "ONNX, int8"
# torch: precision, whether it is compiled, and where tokens merge.
TORCH = {
    "float32": (torch.float32, False, ()),
    "float32, compiled": (torch.float32, True, ()),
    "bfloat16": (torch.bfloat16, False, ()),
    COMPILED: (torch.bfloat16, True, ()),
    "bfloat16, compiled, merged": (torch.bfloat16, True, MERGED_LAYERS),
}
# onnxruntime: how the file is exported.
ONNX = {
    "ONNX, float32": {"int8": False},
    INT8: {"int8": True},
    "ONNX, int8, merged": {"int8": True, "token_merge_layers": MERGED_LAYERS},
}
# Frames: a compiled model gets few shapes of clips; those of whole seconds grow by two frames.
BUCKET = 100
CLIP_SECONDS = (1, 10)
BATCH = 32
MIXED_CLIPS, MIXED_BATCH = 64, 8


def save_base(folder: Path) -> None:
    """A base model with random weights, and its extractor."""
    torch.manual_seed(0)
    FFTPForAudioClassification(FFTPConfig(num_labels=527)).save_pretrained(folder)
    FFTPFeatureExtractor().save_pretrained(folder)


def onnx_name(way: str) -> str:
    """Name of the file in a model's folder."""
    return default_file_name(ONNX[way]["int8"], "token_merge_layers" in ONNX[way])


def build(folder: Path, way: str, task: str) -> Pipeline:
    """The pipeline of a folder, run in a way."""
    extractor = FFTPFeatureExtractor.from_pretrained(folder)
    if way in ONNX:
        model = FFTPOnnxForAudioClassification.from_pretrained(folder, onnx_name(way))
    else:
        dtype, is_compiled, layers = TORCH[way]
        # A folder that merges by itself goes on doing so.
        merging = {"token_merge_layers": layers} if layers else {}
        model = FFTPForAudioClassification.from_pretrained(folder, dtype=dtype, **merging).eval()
        if is_compiled:
            model.compile(dynamic=False)
            extractor.pad_to_multiple_of = BUCKET
    return pipeline(task, model=model, feature_extractor=extractor, device="cpu")


def measure_times(folder: Path, seconds: float, clip_seconds: float) -> dict[str, float]:
    """Median milliseconds of a pipeline call on one clip, by way, and of transformers' AST in float32."""
    torch.compiler.reset()
    calls: dict[str, Callable] = {BASELINE: classify(BASELINE, "base", clip_seconds)}
    for way in (*TORCH, *ONNX):
        call = partial(build(folder, way, "audio-classification"), make_sound(clip_seconds))
        calls[way] = with_one_torch_thread(call) if way in ONNX else call
    return {way: 1000 * statistics.median(times) for way, times in time_in_turn(calls, seconds).items()}


def measure_accuracy(folder: Path, clips: Dataset, ways: Sequence[str]) -> dict[str, dict[str, float]]:
    """Share of the clips that a way labels right, and that it labels as float32, one of the ways, does."""
    audio, label = find_column(clips, "audio"), find_column(clips, "label")
    feature, wanted = clips.features[label], clips[label][:]
    if isinstance(feature, ClassLabel):
        wanted = feature.int2str(wanted)
    sounds = clips[audio][:]
    known = FFTPConfig.from_pretrained(folder).label2id
    unknown = sorted({*wanted} - known.keys())
    if unknown:
        raise ValueError(f"the clips have labels {unknown[:3]}... that the model lacks; it has {[*known][:3]}...")
    answers = {}
    for way in ways:
        torch.compiler.reset()
        tag = build(folder, way, "audio-tagging")
        answers[way] = [answer["labels"][0]["label"] for answer in tag(sounds, batch_size=BATCH, top_k=1)]
    return {
        way: {
            "accuracy": float(np.mean(np.array(given) == wanted)),
            "as_float32": float(np.mean(np.array(given) == answers["float32"])),
        }
        for way, given in answers.items()
    }


def time_batch(size: str, keeps_memory: bool) -> float:
    """Median seconds of a forward pass of a batch in bfloat16; for a process of its own, which keeps memory or not."""
    if keeps_memory:
        keep_freed_memory()
    call = forward("FFTP-AST, stride 5", size, REFERENCE_SECONDS, 16, "bfloat16")
    return statistics.median(time_in_turn({"forward": call}, 0.0)["forward"])


def measure_kept_memory(size: str = "base", rounds: int = 5) -> dict[str, float]:
    """Median seconds of that forward pass, by whether freed memory is kept: processes take turns."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for keeps_memory in [*times] * rounds:
        times[keeps_memory].append(in_new_process(time_batch, size, keeps_memory))
    return {
        "with glibc's default": statistics.median(times[False]),
        "with freed memory kept": statistics.median(times[True]),
    }


def measure_batching(folder: Path, seconds: float) -> dict[str, float]:
    """Median seconds for recordings of 1 to 10 s in batches, by their order."""
    tag = build(folder, "float32", "audio-tagging")
    lengths = np.random.default_rng(0).uniform(*CLIP_SECONDS, size=MIXED_CLIPS)
    recordings = [make_sound(length) for length in lengths]
    # Only a list can be sorted; a generator's recordings come as they come.
    calls = {
        "one at a time": lambda: tag(recordings),
        "batches in the given order": lambda: [*tag((sound for sound in recordings), batch_size=MIXED_BATCH)],
        "batches sorted by length": lambda: tag(recordings, batch_size=MIXED_BATCH),
    }
    return {name: statistics.median(times) for name, times in time_in_turn(calls, seconds).items()}


def measure(trained: Path, merging: Path, dataset: str, split: str, seconds: float) -> dict:
    """All of it; the exported files lie beside copies of the models."""
    for folder, layers in ((trained, ()), (merging, MERGED_LAYERS)):
        found = FFTPConfig.from_pretrained(folder).token_merge_layers
        if found != layers:
            raise ValueError(f"{folder} has token_merge_layers={found}; expected {layers}")
    clips = load_splits(dataset)[split]
    with tempfile.TemporaryDirectory() as scratch:
        base, copy, merging_copy = (Path(scratch, name) for name in ("base", "trained", "merging"))
        save_base(base)
        for source, target in ((trained, copy), (merging, merging_copy)):
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("checkpoint-*", "*.onnx"))
        for folder in (base, copy):
            for way in ONNX.values():
                export(folder, **way)
        export(merging_copy, int8=True)
        return {
            "machine": describe_machine(),
            "model": trained.name,
            "clips": len(clips),
            "dataset": Path(dataset).name,
            "base": {f"{length} s": measure_times(base, seconds, length) for length in CLIP_SECONDS},
            "accuracy": measure_accuracy(copy, clips, [*TORCH, *ONNX]),
            "merging": {
                "model": merging.name,
                "accuracy": measure_accuracy(merging_copy, clips, ["float32", COMPILED, INT8]),
            },
            "mib": {way: (copy / onnx_name(way)).stat().st_size / 2**20 for way in ONNX}
            | {way: (copy / "model.safetensors").stat().st_size / 2**20 for way in TORCH},
            "batching": measure_batching(base, seconds),
            "kept_memory": measure_kept_memory(),
        }


def show_times(results: dict, way: str) -> list[str]:
    """Milliseconds by length of the clip, and how many times as fast as transformers' AST."""
    return [f"{times[way]:.1f} ms ({times[BASELINE] / times[way]:.1f}x)" for times in results["base"].values()]


def render(results: dict) -> str:
    """Markdown."""
    rows = [[f"{BASELINE}, float32", *show_times(results, BASELINE), "", "", ""]]
    for way, accuracy in results["accuracy"].items():
        shares = [f"{accuracy['accuracy']:.2%}", f"{accuracy['as_float32']:.2%}"]
        rows.append([way, *show_times(results, way), *shares, f"{results['mib'][way]:.1f} MiB"])
    header = ["way", *(f"base, {length}" for length in results["base"]), "accuracy", "as float32", "file"]
    merging, slowest = results["merging"], max(results["batching"].values())
    merged = ", ".join(f"{result['accuracy']:.2%} ({way})" for way, result in merging["accuracy"].items())
    batching = ([name, f"{time:.1f} s", f"{slowest / time:.2f}"] for name, time in results["batching"].items())
    kept_memory = ", ".join(f"{1000 * time:.0f} ms {name}" for name, time in results["kept_memory"].items())
    return f"""# Ways to run a model on a CPU

`python -m benchmarks.inference FOLDER --dataset_name DATA --merging FOLDER` on {name_machine(results["machine"])};
medians, in turn.

Time: the pipeline on one clip, base size, 198 tokens on 10 s. Accuracy: `{results["model"]}` on {results["clips"]}
validation clips of {results["dataset"]}, in batches of {BATCH}. Compiled models get clips padded to a multiple of
{BUCKET / 100:g} s and have frozen weights (`TORCHINDUCTOR_FREEZING=1`). In brackets: how many times as fast as the
first row, which pads every clip to 10.24 s. Merged: `token_merge_layers` {[*MERGED_LAYERS]}, set after training.

{render_table(header, rows)}
`{merging["model"]}` was trained with `token_merge_layers` {[*MERGED_LAYERS]}: accuracy {merged}. Compiled and as int8
file it takes the time of the merged ones above.

`audio-tagging` on {MIXED_CLIPS} recordings of 1 to 10 s, base size, float32, batches of {MIXED_BATCH}:

{render_table(["", "time", "times as fast"], batching)}
A forward pass of 16 clips of 10 s, base size, bfloat16, in processes that take turns: {kept_memory}
(`modeling_fftp.memory.keep_freed_memory`).
"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="trained model")
    parser.add_argument("--dataset_name", help="Hub id or folder")
    parser.add_argument("--merging", type=Path, help="model trained with token_merge_layers")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--seconds_per_group", type=float, default=60.0)

    def measure_all(given: argparse.Namespace) -> dict:
        if None in (given.folder, given.dataset_name, given.merging):
            parser.error("FOLDER, --dataset_name and --merging are missing: what to measure")
        keep_freed_memory()
        # As TORCHINDUCTOR_FREEZING=1 does: weights are constants of what is compiled, in the order that its kernels
        # read.
        with inductor.patch(freezing=True), dynamo.patch(fail_on_recompile_limit_hit=True):
            return measure(given.folder, given.merging, given.dataset_name, given.split, given.seconds_per_group)

    run_benchmark("inference", parser, measure_all, render)


if __name__ == "__main__":
    main()
