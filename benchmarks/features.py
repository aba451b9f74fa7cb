"""Time to make a training batch: features computed from sound for every batch, or once and kept on disk.

Noise stands in for sound: its content does not change the time. Both ways run in turn.
"""

import argparse
import tempfile
from functools import partial

import numpy as np
from datasets import Dataset, Features, List, Value

from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import summarise, time_in_turn
from feature_extraction import FFTPFeatureExtractor, SpecMask, SpecMaskDataCollator
from modeling_fftp import FFTPConfig
from modeling_fftp.memory import keep_freed_memory
from modeling_fftp.training.data.features import compute_features

SAMPLING_RATE = 16000
BATCH = 64
CLIP_SECONDS = (1, 10)


def make_clips(seconds: int, folder: str) -> Dataset:
    """A batch of noise, kept on disk as a training keeps decoded sound."""
    rng = np.random.default_rng(0)
    clips = [(0.1 * rng.normal(size=seconds * SAMPLING_RATE)).astype(np.float32) for _ in range(BATCH)]
    features = Features({"audio": List(Value("float32")), "labels": Value("int64")})
    Dataset.from_dict({"audio": clips, "labels": [0] * BATCH}, features=features).save_to_disk(folder)
    return Dataset.load_from_disk(folder).with_format("numpy")


def make_batch(collator: SpecMaskDataCollator, clips: Dataset) -> None:
    """A training batch of all clips."""
    # As a loader reads them.
    collator.augment(clips.__getitems__([*range(BATCH)]))


def measure(seconds: float) -> list[dict]:
    """Milliseconds per batch, by way and by clip length."""
    keep_freed_memory()
    extractor, records = FFTPFeatureExtractor(), []
    for length in CLIP_SECONDS:
        spec_mask = SpecMask.from_config(FFTPConfig(max_length=100 * length), budget=0.2)
        collator = SpecMaskDataCollator(extractor, spec_mask)
        with tempfile.TemporaryDirectory() as folder:
            sound = make_clips(length, folder)
            ways = {"computed for every batch": sound, "computed once": compute_features(sound, extractor)}
            calls = {way: partial(make_batch, collator, clips) for way, clips in ways.items()}
            times = time_in_turn(calls, seconds)
        records += [{"way": way, "seconds": length} | summarise(taken) for way, taken in times.items()]
    return records


def render(results: dict) -> str:
    """Markdown."""
    medians = {}
    for record in results["records"]:
        medians.setdefault(record["way"], []).append(f"{record['median_ms']:.0f} ms")
    header = ["features", *(f"{length} s clips" for length in CLIP_SECONDS)]
    return f"""# Time to make a training batch of {BATCH} clips

`python -m benchmarks.features`: medians, reading and SpecMask included. {name_machine(results["machine"])}.

{render_table(header, ([way, *times] for way, times in medians.items()))}"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds_per_group", type=float, default=20.0, help="3 to 15 rounds that fit into this")
    run_benchmark(
        "features",
        parser,
        lambda given: {"machine": describe_machine(), "records": measure(given.seconds_per_group)},
        render,
    )


if __name__ == "__main__":
    main()
