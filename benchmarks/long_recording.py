"""An hour of sound through the pipeline audio-tagging: memory, time, and whether the timeline is right.

    make demo
    python -m benchmarks.long_recording demo_output/model

The recording is made of the demo's kinds of sound, each heard for 10 to 30 s in new clips one after another, and
written as FLAC.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from transformers import pipeline

from benchmarks.report import describe_machine, keep
from demo.sounds import KINDS, SAMPLING_RATE, make_clip

# A recorder's rate, not the model's.
RECORDED_RATE = 44100


def write_recording(path: Path, minutes: float, seed: int) -> list[tuple[float, float, str]]:
    """Write the recording in stereo, sound by sound.

    Returns:
        Start and end in seconds and kind of each sound.
    """
    rng = np.random.default_rng(seed)
    events, end, kind = [], 0.0, None
    with soundfile.SoundFile(path, "w", RECORDED_RATE, 2) as file:
        while end < 60 * minutes:
            kind = rng.choice([name for name in KINDS if name != kind])
            start, until = end, end + rng.uniform(10, 30)
            while end < until:
                clip = make_clip(kind, rng)
                clip = soxr.resample(0.3 * clip / np.abs(clip).max(), SAMPLING_RATE, RECORDED_RATE)
                file.write(np.stack((clip, clip), axis=1))
                end += len(clip) / RECORDED_RATE
            events.append((start, end, kind))
    return events


def share_found(events: list[tuple[float, float, str]], timeline: list[dict], tolerance: float) -> float:
    """Share of the sounds with a timeline entry of their kind whose start and end are within `tolerance` seconds."""
    found = 0
    for start, end, kind in events:
        entries = [entry for entry in timeline if entry["label"] == kind]
        found += any(
            abs(entry["start"] - start) <= tolerance and abs(entry["end"] - end) <= tolerance for entry in entries
        )
    return found / len(events)


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model trained on the demo's sounds")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tag = pipeline("audio-tagging", model=arguments.model, trust_remote_code=True)
    window = tag.model.config.max_length / 100
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recording.flac")
        events = write_recording(path, arguments.minutes, arguments.seed)
        tag(torch.zeros(SAMPLING_RATE))
        idle = peak_memory()
        started = time.perf_counter()
        answer = tag(path, batch_size=arguments.batch_size)
        seconds = time.perf_counter() - started
    results = {
        "machine": describe_machine(),
        "minutes": answer["duration"] / 60,
        "window_seconds": window,
        "idle_mib": idle,
        "peak_mib": peak_memory(),
        "seconds_per_hour": seconds * 3600 / answer["duration"],
        "sounds": len(events),
        "share_within_one_window": share_found(events, answer["timeline"], window),
    }
    keep("long_recording", results, render(results))


def render(results: dict) -> str:
    """Markdown."""
    extra = results["peak_mib"] - results["idle_mib"]
    return f"""# A long recording through the pipeline audio-tagging

`python -m benchmarks.long_recording demo_output/model` on {results["machine"]["threads"]} threads of
{results["machine"]["processor"]}: the demo's model, windows of {results["window_seconds"]:.1f} s that overlap by half,
a stereo FLAC file at {RECORDED_RATE} Hz.

| | |
|---|---|
| length | {results["minutes"]:.1f} minutes, {results["sounds"]} sounds of 10 to 30 s |
| time | {results["seconds_per_hour"]:.0f} s per hour of sound |
| peak memory | {extra:.0f} MiB more than the idle process ({results["idle_mib"]:.0f} MiB) |
| sounds told within one window, start and end | {results["share_within_one_window"]:.1%} |
"""


if __name__ == "__main__":
    main()
