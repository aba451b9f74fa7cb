"""Live sound on one core: time of every hop, memory over an hour, and words spotted in a stream.

    python -m benchmarks.live                                        # hops and memory, random weights
    python -m benchmarks.live --model FOLDER --words DATA --noise DATA   # and words that a model was trained on

Hops are 50 ms. A tiny Mamba goes on from its state, a tiny AST looks at a window of 1 s. The stream with words has
each clip of a validation split once, in random order, 1 to 3 s apart, over other recordings played quietly.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from benchmarks.timing import process_memory
from feature_extraction import FFTPFeatureExtractor
from modeling_fftp import FFTPConfig, FFTPForAudioClassification
from modeling_fftp.audio_stream_fftp import read_audio
from modeling_fftp.serving.stream import load_stream
from modeling_fftp.training.data.sources import find_column, load_splits

SAMPLING_RATE = 16000
HOP_SECONDS = 0.05
BLOCK = round(HOP_SECONDS * SAMPLING_RATE)
LABELS = 40
TINY = {"hidden_size": 192, "num_labels": LABELS, "max_length": 98, "time_stride": 5}
MODELS = {
    "Mamba, from its state": {
        "backbone": "mamba", "mamba_variant": "fo-fo", "pooling": "mean", "use_absolute_position_embeddings": False,
        "num_hidden_layers": 24, "state_size": 8, "expand": 1,
    },
    "AST, a window of 1 s": {"num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768},
}  # fmt: skip
# An event answers a word that it begins in, or so many seconds after its end.
LATE_SECONDS = 0.75
# Of the background under the words, in decibels.
BACKGROUND = -25.0


def measure_hops(fields: dict, minutes: float) -> dict:
    """Stream noise through a model with random weights, hop by hop."""
    torch.manual_seed(0)
    model, extractor = FFTPForAudioClassification(FFTPConfig(**TINY, **fields)).eval(), FFTPFeatureExtractor()
    # Scores that differ from label to label.
    torch.nn.init.normal_(model.classifier.dense.weight)
    stream, rng = model.stream(extractor, hop_seconds=HOP_SECONDS), np.random.default_rng(0)
    blocks = round(60 * minutes / HOP_SECONDS)
    times, memory, answer = [], [], None
    for index in range(blocks):
        block = (0.1 * rng.normal(size=BLOCK)).astype(np.float32)
        started = time.perf_counter()
        answers = stream.push(block)
        times.append(time.perf_counter() - started)
        answer = answers[-1] if answers else answer
        if index % (blocks // 6) == blocks // 60:
            memory.append(process_memory("VmRSS"))
    difference = None
    if stream.cache is not None:
        rng = np.random.default_rng(0)
        sound = np.concatenate([(0.1 * rng.normal(size=BLOCK)).astype(np.float32) for _ in range(blocks)])
        with torch.inference_mode():
            heard = sound[: round(answer.seconds * SAMPLING_RATE)]
            features = extractor(heard, sampling_rate=SAMPLING_RATE, return_tensors="pt")
            whole = model(**features).logits[0].softmax(dim=-1)
        difference = (whole - answer.scores).abs().max().item()
    milliseconds = 1000 * np.asarray(times)
    return {
        "median_ms": float(np.median(milliseconds)),
        "p99_ms": float(np.quantile(milliseconds, 0.99)),
        "worst_ms": float(milliseconds.max()),
        "memory_mib": memory,
        "offline_difference": difference,
    }


def read_clips(source: Path, split: str) -> tuple[list[np.ndarray], list[str]]:
    """Sounds of a data set, and their labels."""
    clips = load_splits(str(source))[split]
    column = find_column(clips, "label")
    # Indices of named classes, or the names themselves.
    names = getattr(clips.features[column], "names", None)
    labels = [label if names is None else names[label] for label in clips[column]]
    return [read_audio(audio, SAMPLING_RATE) for audio in clips["audio"]], labels


def make_stream(words: Path, noise: Path, seed: int) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Words over a background, and when each of them is."""
    rng = np.random.default_rng(seed)
    sounds, labels = read_clips(words, "validation")
    pieces, events, end = [], [], 0
    for index in rng.permutation(len(sounds)):
        pause = np.zeros(round(rng.uniform(1, 3) * SAMPLING_RATE), np.float32)
        start = end + len(pause)
        end = start + len(sounds[index])
        pieces += [pause, sounds[index]]
        events.append((start / SAMPLING_RATE, end / SAMPLING_RATE, labels[index]))
    stream = np.concatenate(pieces)
    others, _ = read_clips(noise, "train")
    background = np.concatenate([other / (np.sqrt(np.mean(other**2)) + 1e-3) for other in others])
    background = np.resize(background, len(stream)) * 10 ** (BACKGROUND / 20)
    return (stream + background).clip(-1, 1).astype(np.float32), events


def spot_words(model: Path, words: Path, noise: Path, memory_seconds: float, threshold: float, seed: int) -> dict:
    """Hits, false alarms and delays of a trained model on a stream of words."""
    sound, events = make_stream(words, noise, seed)
    stream = load_stream(model, HOP_SECONDS, memory_seconds, threshold=threshold)
    changes = [change for start in range(0, len(sound), BLOCK) for a in stream.push(sound[start : start + BLOCK])
               for change in a.changes if change.kind == "begin"]  # fmt: skip
    return score_words(changes, events, len(sound) / SAMPLING_RATE) | {
        "memory_seconds": memory_seconds, "threshold": threshold,
    }  # fmt: skip


def score_words(changes: list, events: list[tuple[float, float, str]], seconds: float) -> dict:
    """What of the words was found, and what was found besides."""
    delays, answered = [], set()
    for start, end, label in events:
        for index, change in enumerate(changes):
            if index not in answered and change.label == label and start <= change.seconds <= end + LATE_SECONDS:
                answered.add(index)
                delays.append(change.seconds - end)
                break
    return {
        "words": len(events),
        "hits": len(delays) / len(events),
        "false_alarms_per_hour": (len(changes) - len(answered)) * 3600 / seconds,
        "delay_seconds": statistics.median(delays) if delays else None,
        "minutes": seconds / 60,
    }


def measure(arguments: argparse.Namespace) -> dict:
    """Everything that the command line asks for."""
    torch.set_num_threads(1)
    results = {"machine": describe_machine(), "minutes": arguments.minutes}
    results["hops"] = {name: measure_hops(fields, arguments.minutes) for name, fields in MODELS.items()}
    if arguments.model is not None:
        results["words"] = [
            spot_words(arguments.model, arguments.words, arguments.noise, memory, threshold, arguments.seed)
            for memory in arguments.memory_seconds
            for threshold in arguments.thresholds
        ]
    return results


def show_delay(seconds: float | None) -> str:
    """A delay, if there is any."""
    return "" if seconds is None else f"{seconds:.2f} s"


def render(results: dict) -> str:
    """Markdown."""
    rows = []
    for name, hops in results["hops"].items():
        memory, difference = hops["memory_mib"], hops["offline_difference"]
        times = [f"{hops[key]:.1f} ms" for key in ("median_ms", "p99_ms", "worst_ms")]
        offline = "" if difference is None else f"{difference:.1e}"
        rows.append([name, *times, f"{memory[0]:.0f} to {memory[-1]:.0f} MiB", offline])
    header = ["tiny model", "median", "99th percentile", "worst", "memory, first to last minutes", "off from offline"]
    parts = [
        f"""# Live sound on one core

`python -m benchmarks.live` on {name_machine(results["machine"])}: {results["minutes"]:.0f} minutes of noise in hops
of 50 ms, random weights. "Off from offline" is the largest difference of a last score from that of the whole sound in
one pass.

{render_table(header, rows)}"""
    ]
    if "words" in results:
        rows = [
            [f"{run['memory_seconds']:g} s", f"{run['threshold']:g}", f"{run['hits']:.1%}",
             f"{run['false_alarms_per_hour']:.0f}", show_delay(run["delay_seconds"])]
            for run in results["words"]
        ]  # fmt: skip
        first = results["words"][0]
        header = ["memory", "threshold", "words found", "false alarms an hour", "delay after the word's clip"]
        parts.append(
            f"""
{first["words"]} words in {first["minutes"]:.0f} minutes, 1 to 3 s apart, over recordings at {BACKGROUND:g} dB:

{render_table(header, rows)}"""
        )
    return "".join(parts)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--model", type=Path, help="folder of a model that knows the words")
    parser.add_argument("--words", type=Path, help="data set with a validation split of words")
    parser.add_argument("--noise", type=Path, help="data set of other sounds")
    parser.add_argument("--memory_seconds", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.9])
    parser.add_argument("--seed", type=int, default=0)
    run_benchmark("live", parser, measure, render)


if __name__ == "__main__":
    main()
