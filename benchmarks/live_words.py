"""Words spotted in a stream: models are trained for it, then hear an hour of words and background.

    python -m benchmarks.live_words --data FOLDER    # trains the models first, in `runs/live_words`

FOLDER holds `arabic_speech_commands` and `esc50`. A model learns from pieces of streams, half of them around a word,
and of each the words that are whole in it; many have none. The stream that it then hears has validation words in
random order, 1 to 3 s apart, over recordings of a fold that it never heard.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, List

from benchmarks.commands import PLAIN, ROOT, call, slug
from benchmarks.live import BLOCK, HOP_SECONDS, SAMPLING_RATE
from benchmarks.mixtures import as_flac, write_clips
from benchmarks.report import describe_machine, name_machine, render_table, run_benchmark
from modeling_fftp.atomic_write import atomic_folder
from modeling_fftp.audio_stream_fftp import read_audio
from modeling_fftp.events_fftp import EventChange, EventTracker
from modeling_fftp.hub.run_files import read_results, results_of
from modeling_fftp.scores_fftp import label_names
from modeling_fftp.serving.listen import load_stream
from modeling_fftp.training.data.sources import find_column, load_splits

WORDS, NOISE = "arabic_speech_commands", "esc50"
# git leaves `runs` out.
FOLDER = ROOT / "runs" / "live_words"
# Between two words, in seconds: in the stream, and in what is learned.
PAUSES = 1.0, 3.0
LEARNED_PAUSES = 0.2, 3.0
PIECE_SECONDS = 1.2
# Of a clip, in seconds at either end, that a piece may lack: there is hardly a sound.
EDGE = 0.15
# Of each training word so many pieces around it, and as many anywhere.
PLACES = 2
# Of the background under the words of the stream, and of those under what is learned, in decibels of full scale.
BACKGROUND = -25.0
BACKGROUNDS = -45.0, -15.0
# Of one stream: an hour.
MOST_WORDS = 1200
# The fold whose recordings only the stream and validation have.
HELD_OUT_FOLD = 4
SHARED = {
    "patch_size": [128, 10], "time_stride": 5, "drop_path_rate": 0.1, "gain": 0.2, "noise": 0.1, "filter_augment": 0.4,
    "mixup_probability": 0, "spec_mask_budget": 0.1, "cache_features": True,
    "learning_rate": 0.001, "weight_decay": 0.05, "warmup_steps": 0.1, "num_train_epochs": 25,
    "per_device_train_batch_size": 64, "auto_bf16": True, "seed": 0,
}  # fmt: skip
MODELS = {
    "AST, a window": {
        "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 768,
    },
    "Mamba, from its state": {
        "backbone": "mamba", "mamba_variant": "fo-fo", "pooling": "mean", "use_absolute_position_embeddings": False,
        "hidden_size": 192, "num_hidden_layers": 8, "state_size": 8, "expand": 1,
    },
}  # fmt: skip
# What "now" is: the length of a window, or the time in which sound counts half.
MEMORIES = {"AST, a window": [PIECE_SECONDS], "Mamba, from its state": [0.25, 0.5, 1.0]}
# An event answers a word that it begins in, or so many seconds after its end.
LATE_SECONDS = 0.75


def read_clips(clips: Dataset) -> tuple[list[np.ndarray], list[str]]:
    """Sounds, and their labels."""
    column = find_column(clips, "label")
    # Indices of named classes, or the names themselves.
    names = getattr(clips.features[column], "names", None)
    labels = [label if names is None else names[label] for label in clips[column]]
    return [read_audio(audio, SAMPLING_RATE) for audio in clips["audio"]], labels


def read_noise(source: Path, held_out: bool) -> np.ndarray:
    """Recordings of the fold that is held out, or of the others, one after the other, each as loud as 0 dB."""
    clips = load_splits(str(source))["train"]
    rows = [row for row, fold in enumerate(clips["fold"]) if (int(fold) == HELD_OUT_FOLD) == held_out]
    sounds, _ = read_clips(clips.select(rows))
    return np.concatenate([sound / (np.sqrt(np.mean(sound**2)) + 1e-3) for sound in sounds])


def lay_words(
    sounds: list[np.ndarray], labels: list[str], pauses: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Words one after the other in random order, pauses of so many seconds between them, and when each of them is."""
    pieces, events, end = [], [], 0
    for index in rng.permutation(len(sounds)):
        pause = np.zeros(round(rng.uniform(*pauses) * SAMPLING_RATE), np.float32)
        start = end + len(pause)
        end = start + len(sounds[index])
        pieces += [pause, sounds[index]]
        events.append((start / SAMPLING_RATE, end / SAMPLING_RATE, labels[index]))
    return np.concatenate(pieces), events


def place_pieces(
    events: list[tuple[float, float, str]], most: int, length: int, rng: np.random.Generator
) -> list[int]:
    """First samples of pieces of a stream: around each word, and anywhere, as likely as not without one."""
    starts = []
    for onset, offset, _ in events:
        around = rng.uniform(offset - EDGE - PIECE_SECONDS, onset + EDGE, PLACES)
        starts += [*np.round(around * SAMPLING_RATE).astype(int), *rng.integers(most - length, size=PLACES)]
    return [min(max(start, 0), most - length) for start in starts]


def whole_words(events: list[tuple[float, float, str]], first: float, last: float) -> list[str]:
    """Words of a stream between two moments in seconds, but for their edges."""
    return [label for onset, offset, label in events if first - EDGE <= onset and offset <= last + EDGE]


def make_pieces(words: Path, noise: Path, folder: Path, seed: int = 0) -> None:
    """Write what the model learns from and validates with: pieces of streams, and the words that are whole in each."""
    rng, splits = np.random.default_rng(seed), load_splits(str(words))
    length = round(PIECE_SECONDS * SAMPLING_RATE)
    for split in ("train", "validation"):
        sounds, labels = read_clips(splits[split])
        background = read_noise(noise, held_out=split == "validation")
        rows = {"audio": [], "labels": []}
        stream, events = lay_words(sounds, labels, LEARNED_PAUSES, rng)
        for start in place_pieces(events, len(stream), length, rng):
            first, last = start / SAMPLING_RATE, (start + length) / SAMPLING_RATE
            place = rng.integers(len(background) - length)
            level = 10 ** (rng.uniform(*BACKGROUNDS) / 20)
            mixed = stream[start : start + length] + level * background[place : place + length]
            rows["audio"].append(as_flac(mixed.clip(-1, 1)))
            rows["labels"].append(whole_words(events, first, last))
        write_clips(rows, {"labels": List(ClassLabel(names=sorted(set(labels))))}, folder, split)


def train_model(name: str, words: Path, noise: Path) -> Path:
    """A model that is trained for this; one that is there, and was trained so, is not trained again."""
    model = FOLDER / slug(name)
    wanted, recipe = SHARED | MODELS[name] | PLAIN, model.with_suffix(".json")
    if not (FOLDER / "data").exists():
        with atomic_folder(FOLDER / "data") as data:
            make_pieces(words, noise, data)
    if not (model / "config.json").exists() or json.loads(recipe.read_text(encoding="utf-8")) != wanted:
        shutil.rmtree(model, ignore_errors=True)
        call("train", FOLDER / "data", model, wanted)
    return model


def make_stream(words: Path, noise: Path, seed: int) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Words over a background, and when each of them is."""
    rng = np.random.default_rng(seed)
    sounds, labels = read_clips(load_splits(str(words))["validation"])
    chosen = rng.permutation(len(sounds))[:MOST_WORDS]
    stream, events = lay_words([sounds[row] for row in chosen], [labels[row] for row in chosen], PAUSES, rng)
    background = np.resize(read_noise(noise, held_out=True), len(stream)) * 10 ** (BACKGROUND / 20)
    return (stream + background).clip(-1, 1).astype(np.float32), events


def hear(model: Path, sound: np.ndarray, memory_seconds: float) -> tuple[list[str], list[tuple[float, torch.Tensor]]]:
    """Labels of a model, and when it gave which scores of them."""
    stream = load_stream(model, HOP_SECONDS, memory_seconds)
    blocks = (sound[start : start + BLOCK] for start in range(0, len(sound), BLOCK))
    return label_names(stream.model.config), [(a.seconds, a.scores) for block in blocks for a in stream.push(block)]


def find_beginnings(labels: list[str], heard: list[tuple[float, torch.Tensor]], threshold: float) -> list[EventChange]:
    """Events that begin, with one threshold for all labels."""
    tracker = EventTracker(labels, [threshold] * len(labels))
    changes = [change for seconds, scores in heard for change in tracker.update(seconds, scores)]
    return [change for change in changes if change.kind == "begin"]


def score_words(changes: list[EventChange], events: list[tuple[float, float, str]], seconds: float) -> dict:
    """What of the words was found, and what was found besides."""
    delays, answered = [], set()
    for start, end, label in events:
        for index, change in enumerate(changes):
            if index not in answered and change.label == label and start <= change.seconds <= end + LATE_SECONDS:
                answered.add(index)
                delays.append(change.seconds - end)
                break
    return {
        "hits": len(delays) / len(events),
        "false_alarms_per_hour": (len(changes) - len(answered)) * 3600 / seconds,
        "delay_seconds": statistics.median(delays) if delays else None,
    }


def measure(arguments: argparse.Namespace) -> dict:
    """Train what is not there, and listen with each memory once."""
    torch.set_num_threads(1)
    words, noise = arguments.data / WORDS, arguments.data / NOISE
    sound, events = make_stream(words, noise, arguments.seed)
    rows, validated = [], {}
    for name, memories in MEMORIES.items():
        model = train_model(name, words, noise)
        validated[name] = read_results(model, results_of("validation"))["validation_map"]
        for memory in memories:
            labels, heard = hear(model, sound, memory)
            for threshold in arguments.thresholds:
                found = score_words(find_beginnings(labels, heard, threshold), events, len(sound) / SAMPLING_RATE)
                rows.append({"model": name, "memory_seconds": memory, "threshold": threshold} | found)
    return {
        "machine": describe_machine(), "words": len(events), "minutes": len(sound) / SAMPLING_RATE / 60,
        "mAP": validated, "rows": rows,
    }  # fmt: skip


def render(results: dict) -> str:
    """Markdown."""
    rows = []
    for row in results["rows"]:
        delay = "" if row["delay_seconds"] is None else f"{row['delay_seconds']:+.2f} s"
        found = [f"{row['hits']:.1%}", f"{row['false_alarms_per_hour']:.0f}", delay]
        rows.append([row["model"], f"{row['memory_seconds']:g} s", f"{row['threshold']:g}", *found])
    header = ["model", "memory", "threshold", "words found", "false alarms an hour", "delay after the word's clip"]
    validated = " and ".join(f"{value:.1%} ({name})" for name, value in results["mAP"].items())
    return f"""# Words spotted in a stream

`python -m benchmarks.live_words --data FOLDER` on {name_machine(results["machine"])}. The models know 40
words, and learned them from pieces of {PIECE_SECONDS:g} s of streams like this one, with and without words. On such
pieces of other speakers their mAP is {validated}.

The stream has {results["words"]} words of other speakers in {results["minutes"]:.0f} minutes, 1 to 3 s apart, over
recordings at {BACKGROUND:g} dB that the models never heard; it comes in hops of {1000 * HOP_SECONDS:g} ms. A word is
found where an event of its label begins between the clip's beginning and {LATE_SECONDS:g} s after its end; all other
events are false alarms. The clips are of the validation split, which chose nothing here.

{render_table(header, rows)}"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--seed", type=int, default=0)
    run_benchmark("live_words", parser, measure, render)


if __name__ == "__main__":
    main()
