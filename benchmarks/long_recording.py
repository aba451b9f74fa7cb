"""An hour of sound through the pipeline audio-tagging: memory, time, and whether the timeline is right.

    make demo
    python -m benchmarks.long_recording demo_output/model

The recording is made of the demo's kinds of sound, each heard for 10 to 30 s in new clips one after another, and
written as FLAC.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from transformers import pipeline

from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import process_memory, time_call
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


def measure(model: str, minutes: float, batch_size: int, seed: int) -> dict:
    """Tag a new recording once."""
    tag = pipeline("audio-tagging", model=model, trust_remote_code=True)
    window = tag.model.config.max_length / 100
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recording.flac")
        events = write_recording(path, minutes, seed)
        tag(torch.zeros(SAMPLING_RATE))
        idle = process_memory("VmHWM")
        answers = []
        seconds = time_call(lambda: answers.append(tag(path, batch_size=batch_size)))
    (answer,) = answers
    return {
        "machine": describe_machine(),
        "minutes": answer["duration"] / 60,
        "window_seconds": window,
        "idle_mib": idle,
        "peak_mib": process_memory("VmHWM"),
        "seconds_per_hour": seconds * 3600 / answer["duration"],
        "sounds": len(events),
        "share_within_one_window": share_found(events, answer["timeline"], window),
    }


def render(results: dict) -> str:
    """Markdown."""
    extra = results["peak_mib"] - results["idle_mib"]
    rows = [
        ["length", f"{results['minutes']:.1f} minutes, {results['sounds']} sounds of 10 to 30 s"],
        ["time", f"{results['seconds_per_hour']:.0f} s per hour of sound"],
        ["peak memory", f"{extra:.0f} MiB more than the idle process ({results['idle_mib']:.0f} MiB)"],
        ["sounds told within one window, start and end", f"{results['share_within_one_window']:.1%}"],
    ]
    return f"""# A long recording through the pipeline audio-tagging

`python -m benchmarks.long_recording demo_output/model` on {name_machine(results["machine"])}: the demo's model,
windows of {results["window_seconds"]:.1f} s that overlap by half, a stereo FLAC file at {RECORDED_RATE} Hz.

{render_table(["", ""], rows)}"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo_output/model", help="trained on the demo's sounds")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    run_benchmark(
        "long_recording",
        parser,
        lambda given: measure(given.model, given.minutes, given.batch_size, given.seed),
        render,
    )


if __name__ == "__main__":
    main()
