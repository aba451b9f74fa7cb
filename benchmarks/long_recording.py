"""An hour of sound through the pipeline audio-tagging: memory, time, and whether the timeline is right.

    make demo
    python -m benchmarks.long_recording demo_output/model

The recording is made of the demo's kinds of sound, each heard for 10 to 30 s in new clips one after another, and
written as FLAC. A kind that the model does not know is background. Where the model's folder says what its scores were
calibrated by, false alarms are counted before and after.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from transformers import PreTrainedConfig, pipeline

from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import process_memory, time_call
from demo.sounds import KINDS, SAMPLING_RATE, make_clip
from modeling_fftp.events_fftp import find_segments
from modeling_fftp.hub.run_files import CALIBRATION, read_results
from modeling_fftp.scores_fftp import is_multi_label, label_names, label_thresholds, probabilities

# A recorder's rate, not the model's.
RECORDED_RATE = 44100
# Share of the sounds to find, and logits by which thresholds are lowered until they are found.
RECALL = 0.95
SHIFTS = [step / 16 for step in range(-128, 129)]


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


def count_alarms(
    events: list[tuple[float, float, str]], labels: list[str], segments: list[tuple[float, float, int, float]]
) -> tuple[float, float]:
    """Share of the sounds that an entry of their kind overlaps, and entries an hour that overlap none of theirs."""
    entries = [(start, end, labels[index]) for start, end, index, _ in segments]

    def overlaps(one: tuple[float, float, str], others: list[tuple[float, float, str]]) -> bool:
        return any(one[2] == kind and one[0] < end and start < one[1] for start, end, kind in others)

    known = [event for event in events if event[2] in labels]
    hits = sum(overlaps(event, entries) for event in known)
    false = sum(not overlaps(entry, events) for entry in entries)
    return hits / len(known), false * 3600 / events[-1][1]


def compare_calibration(
    answer: dict,
    count: Callable[[list[tuple[float, float, int, float]]], tuple[float, float]],
    config: PreTrainedConfig,
    temperature: float,
    wanted: float = RECALL,
) -> dict:
    """Recall and false alarms with the scores of the model and with those before its calibration.

    `count` gives both for the segments of a timeline. "at_recall" has the false alarms where all thresholds are moved,
    by the same number of logits, to the highest at which a wanted share of the sounds is found.
    """
    labels = label_names(config)
    spans = torch.tensor([[window["start"], window["end"]] for window in answer["windows"]], dtype=torch.float64)
    scores = torch.tensor([window["scores"] for window in answer["windows"]], dtype=torch.float64).clamp(1e-12, 1)
    logits = scores.logit(eps=1e-12) if is_multi_label(config) else scores.log()
    gap, results = spans.diff().max().item(), {}
    for name, scale, own in (("before", temperature, None), ("after", 1.0, config.thresholds)):
        scaled = probabilities(logits * scale, config)
        thresholds = torch.tensor(label_thresholds(labels, own), dtype=torch.float64)

        def count_at(shift: float, scores=scaled, thresholds=thresholds) -> tuple[float, float]:
            moved = (thresholds.logit(eps=1e-6) - shift).sigmoid().tolist()
            return count(find_segments(scores, spans, moved, gap))

        recall, alarms = count_at(0.0)
        found = next((found for shift in SHIFTS if (found := count_at(shift))[0] >= wanted), (None, None))
        results[name] = {"recall": recall, "false_alarms": alarms, "at_recall": found[1]}
    return results


def read_temperature(model: str) -> float | None:
    """What the logits of a folder were calibrated by."""
    calibration = read_results(model, CALIBRATION)
    return None if calibration is None else calibration["temperature"]


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
        seconds = time_call(lambda: answers.append(tag(path, batch_size=batch_size, return_windows=True)))
    (answer,) = answers
    temperature = read_temperature(model)
    count = partial(count_alarms, events, label_names(tag.model.config))
    return {
        "model": model,
        "calibration": temperature and compare_calibration(answer, count, tag.model.config, temperature),
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
    calibration = [
        [name, f"{values['recall']:.1%}", f"{values['false_alarms']:.1f}",
         "not reached" if values["at_recall"] is None else f"{values['at_recall']:.1f}"]
        for name, values in (results["calibration"] or {}).items()
    ]  # fmt: skip
    header = ["calibration", "sounds found", "false alarms an hour", f"those where {RECALL:.0%} are found"]
    return f"""# A long recording through the pipeline audio-tagging

`python -m benchmarks.long_recording {results["model"]}` on {name_machine(results["machine"])}: the demo's model,
windows of {results["window_seconds"]:.1f} s that overlap by half, a stereo FLAC file at {RECORDED_RATE} Hz.

{render_table(["", ""], rows)}

A sound is found where an entry of its kind overlaps it; a false alarm overlaps none. Before: logits as they were
trained, and 0.5 for every label; after: with the temperature and thresholds that training chose on validation.

{render_table(header, calibration) if calibration else "The model was not calibrated."}"""


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
