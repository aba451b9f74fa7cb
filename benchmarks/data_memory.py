"""Memory and disk that data take: decoded beforehand, and streamed from ten times the memory that it may take.

    python -m benchmarks.data_memory            # writes 21 GB into the folder for temporary files, and removes it

Linux only. Memory is that of the process and of its loader's workers, shared pages counted once, beyond what the
process held after its imports.
"""

import argparse
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import soundfile
from datasets import Dataset
from datasets import config as datasets_config
from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.report import COLORS, describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import in_new_process
from modeling_fftp.training.arguments import DataArguments, FFTPTrainingArguments
from modeling_fftp.training.data.loading import load_clips
from modeling_fftp.training.data.plan import plan_data
from modeling_fftp.training.run import run

RATE = 16000
# Of so many samples of the memory one is kept for the curve; the peak is that of all.
KEPT = 10
DECODED_CLIPS, DECODED_SECONDS = 120, 120
STREAMED_SECONDS, ROW_GROUP, SHARD_ROWS = 10, 50, 1000
TINY = [
    "--hidden_size", "48", "--num_hidden_layers", "2", "--num_attention_heads", "3", "--intermediate_size", "96",
    "--num_train_epochs", "1", "--report_to", "none", "--disable_tqdm", "true",
]  # fmt: skip


def make_sound(seconds: float, generator: np.random.Generator) -> bytes:
    """A WAV file of noise."""
    file = io.BytesIO()
    soundfile.write(file, generator.uniform(-0.3, 0.3, int(seconds * RATE)), RATE, format="WAV")
    return file.getvalue()


def make_folder(folder: Path) -> None:
    """Clips of two classes as files."""
    generator = np.random.default_rng(0)
    for number in range(DECODED_CLIPS):
        path = folder / f"class {number % 2}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_sound(DECODED_SECONDS, generator))


def make_shards(folder: Path, mib: float) -> None:
    """Parquet files of clips of two classes, of so many MiB."""
    generator, folder_rows = np.random.default_rng(0), int(mib * 2**20 / (2 * STREAMED_SECONDS * RATE))
    for first in range(0, folder_rows, SHARD_ROWS):
        rows = [
            {"audio": {"bytes": make_sound(STREAMED_SECONDS, generator), "path": None}, "label": f"class {row % 2}"}
            for row in range(first, min(first + SHARD_ROWS, folder_rows))
        ]
        Dataset.from_list(rows).to_parquet(folder / f"train-{first:06}.parquet", batch_size=ROW_GROUP)


def watch(function: Callable[[], object]) -> dict:
    """Seconds and MiB over time while a function runs."""
    process, done, series = psutil.Process(), threading.Event(), []

    def used() -> float:
        total = 0
        for member in (process, *process.children(recursive=True)):
            try:
                total += member.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total / 2**20

    before, started = used(), time.perf_counter()

    def sample() -> None:
        while not done.wait(0.2):
            series.append([time.perf_counter() - started, used() - before])

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        function()
    finally:
        done.set()
        thread.join()
    return {
        "seconds": time.perf_counter() - started,
        "series": series[::KEPT],
        "peak_mib": max(mib for _, mib in series),
    }


def decode(source: str, cache: str) -> dict:
    """Decode a folder; for a process of its own."""
    datasets_config.HF_DATASETS_CACHE = Path(cache)
    data, training = DataArguments(source), FFTPTrainingArguments(output_dir=f"{cache}/out", report_to="none")
    return watch(lambda: load_clips(plan_data(data, training), data, training)) | {"disk_mib": disk(Path(cache))}


def stream(source: str, output: str, workers: int) -> dict:
    """Train an epoch on streamed clips; for a process of its own."""
    datasets_config.HF_DATASETS_CACHE = Path(output, "cache")
    arguments = ["--dataset_name", source, "--output_dir", output, "--streaming", "true", *TINY]
    arguments += ["--dataloader_num_workers", str(workers), "--per_device_train_batch_size", "16"]
    arguments += ["--per_device_eval_batch_size", "16"]
    return watch(lambda: run(arguments)) | {"disk_mib": disk(Path(output, "cache"))}


def disk(folder: Path) -> float:
    """MiB of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def measure(given: argparse.Namespace) -> dict:
    """Both, on data that is made for it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch, name) for name in ("files", "shards", "cache", "output")}
        for folder in folders.values():
            folder.mkdir()
        make_folder(folders["files"])
        decoded = in_new_process(decode, str(folders["files"]), str(folders["cache"]))
        make_shards(folders["shards"], 10 * given.allowed_mib)
        size = disk(folders["shards"])
        streamed = in_new_process(stream, str(folders["shards"]), str(folders["output"]), given.workers)
    return {
        "machine": describe_machine(),
        "allowed_mib": given.allowed_mib,
        "workers": given.workers,
        "decoded": decoded | {"data_mib": DECODED_CLIPS * DECODED_SECONDS * RATE * 2 / 2**20},
        "streamed": streamed | {"data_mib": size},
    }


def render(results: dict) -> str:
    """Markdown."""
    names = {
        "decoded": f"decoded beforehand: {DECODED_CLIPS} files of {DECODED_SECONDS} s",
        "streamed": f"streamed: an epoch of a tiny model, clips of {STREAMED_SECONDS} s, {results['workers']} workers",
    }
    columns = ("data_mib", "peak_mib", "disk_mib")
    rows = [[name, *(f"{results[way][column]:.0f} MiB" for column in columns)] for way, name in names.items()]
    return f"""# Memory and disk of the data

`python -m benchmarks.data_memory --allowed_mib {results["allowed_mib"]} --workers {results["workers"]}` on
{name_machine(results["machine"])}. Memory of the process and its workers, beyond that after the imports; the streamed
run may take {results["allowed_mib"]} MiB, a tenth of its data.

{render_table(["", "data", "memory, peak", "disk"], rows)}
![Memory over time](data_memory.png)
"""


def plot(results: dict) -> Figure:
    """Memory over the time of the streamed run."""
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    axes.plot(*zip(*results["streamed"]["series"], strict=True), color=COLORS[0], label="streamed run")
    axes.axhline(results["allowed_mib"], color=COLORS[1], linestyle="--", label="a tenth of the data")
    axes.set(xlabel="time (s)", ylabel="memory (MiB)", ylim=(0, None))
    axes.legend()
    return figure


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allowed_mib", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    run_benchmark("data_memory", parser, measure, render, plot)


if __name__ == "__main__":
    main()
