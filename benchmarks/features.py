"""Time to make a training batch: features computed from sound for every batch, or once and kept on disk.

Noise stands in for sound: its content does not change the time. Both ways run in turn within each round; the table
gives medians over the rounds.
"""

import argparse
import statistics
import tempfile
import time

import numpy as np
from datasets import Dataset, Features, List, Value

from benchmarks.report import describe_machine, keep
from feature_extraction import FFTPFeatureExtractor, SpecMask, SpecMaskDataCollator
from feature_extraction.audio_dataset_fftp import compute_features
from modeling_fftp import FFTPConfig

SAMPLING_RATE = 16000
BATCH = 64
CLIP_SECONDS = (1, 10)


def make_clips(seconds: int, folder: str) -> Dataset:
    """A batch of noise, kept on disk as train.py keeps decoded sound."""
    rng = np.random.default_rng(0)
    clips = [(0.1 * rng.normal(size=seconds * SAMPLING_RATE)).astype(np.float32) for _ in range(BATCH)]
    features = Features({"audio": List(Value("float32")), "labels": Value("int64")})
    Dataset.from_dict({"audio": clips, "labels": [0] * BATCH}, features=features).save_to_disk(folder)
    return Dataset.load_from_disk(folder).with_format("numpy")


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per batch of every round, by way and by clip length."""
    extractor = FFTPFeatureExtractor()
    seconds = {way: {} for way in ("computed for every batch", "computed once")}
    for length in CLIP_SECONDS:
        spec_mask = SpecMask.from_config(FFTPConfig(max_length=100 * length), budget=0.2)
        collator = SpecMaskDataCollator(extractor, spec_mask)
        with tempfile.TemporaryDirectory() as folder:
            sound = make_clips(length, folder)
            sources = dict(zip(seconds, (sound, compute_features(sound, extractor)), strict=True))
            for index in range(rounds + 1):
                for way, source in sources.items():
                    started = time.perf_counter()
                    collator([source[row] for row in range(BATCH)])
                    if index:
                        seconds[way].setdefault(f"{length} s", []).append(time.perf_counter() - started)
    return seconds


def render(results: dict) -> str:
    """Markdown."""
    medians = {
        way: {length: statistics.median(times) for length, times in lengths.items()}
        for way, lengths in results["seconds"].items()
    }
    rows = [
        f"| {way} | " + " | ".join(f"{1000 * time:.0f} ms" for time in lengths.values()) + " |"
        for way, lengths in medians.items()
    ]
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    return "\n".join(
        [
            f"# Time to make a training batch of {BATCH} clips",
            "",
            f"`python -m benchmarks.features --rounds {results['rounds']}`: medians, reading and SpecMask included.",
            f"Measured on: {machine}.",
            "",
            "| features | " + " | ".join(f"{length} s clips" for length in CLIP_SECONDS) + " |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Measure, print the table, keep it with the raw times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    results = {"rounds": arguments.rounds, "machine": describe_machine(), "seconds": measure(arguments.rounds)}
    keep("features", results, render(results))


if __name__ == "__main__":
    main()
