"""A data set of events made of esc50: short sounds that begin and end in a background that goes on."""

from pathlib import Path

import numpy as np
from datasets import Audio, List, Value, load_dataset

from benchmarks.mixtures import SAMPLING_RATE, as_flac, write_clips
from modeling_fftp.audio_stream_fftp import read_audio
from modeling_fftp.training.data.strong_labels import EVENT

LABELS = (
    "dog", "rooster", "cat", "crow", "sneezing", "coughing", "crying_baby", "door_wood_knock", "glass_breaking",
    "car_horn",
)  # fmt: skip
BACKGROUNDS = ("rain", "wind", "sea_waves", "engine", "vacuum_cleaner")
SOUNDSCAPES_PER_FOLD = 100
SECONDS = 10
MOST_EVENTS = 4
# Loudness of an event over the background, in decibels.
SNR_RANGE = 0.0, 20.0
# Loudness of the background, in decibels of full scale.
BACKGROUND_LEVEL = -40.0
# A clip sounds where it is less than so many decibels below its loudest 10 ms, and through pauses so long.
DROP = 25.0
PAUSE_SECONDS = 0.2
# Shorter events are not taken, longer ones cut.
MIN_SECONDS, MAX_SECONDS = 0.1, 3.0
FADE_SECONDS = 0.01


def make_soundscapes(source: Path, folder: Path, seed: int = 0) -> None:
    """Write audio, events and fold of every soundscape to a folder; the same for the same seed.

    Sounds of one soundscape come from one fold, so folds stay apart.

    Args:
        source: esc50 in Hub layout, with a column `fold`.
        folder: Where the parquet file goes; made where it is missing.
        seed: Decides sounds, times and loudness.
    """
    clips = load_dataset(str(source), split="train").cast_column("audio", Audio(decode=False))
    names, folds = clips.features["label"].names, np.asarray(clips["fold"])
    wanted = {(fold, label): [] for fold in np.unique(folds) for label in (*LABELS, *BACKGROUNDS)}
    for row, (fold, label) in enumerate(zip(folds, clips["label"], strict=True)):
        if (fold, names[label]) in wanted:
            wanted[fold, names[label]].append(read_audio(clips[row]["audio"], SAMPLING_RATE))
    rng = np.random.default_rng(seed)
    rows = {"audio": [], "events": [], "fold": []}
    for fold in np.unique(folds):
        events = {label: [part for clip in wanted[fold, label] for part in find_sounds(clip)] for label in LABELS}
        beds = [clip for label in BACKGROUNDS for clip in wanted[fold, label]]
        for _ in range(SOUNDSCAPES_PER_FOLD):
            sound, found = compose(events, beds, rng)
            rows["audio"].append(as_flac(sound))
            rows["events"].append(found)
            rows["fold"].append(int(fold))
    write_clips(rows, {"events": List(EVENT), "fold": Value("int64")}, folder)


def find_sounds(clip: np.ndarray) -> list[np.ndarray]:
    """The stretches of a clip that sound, each faded in and out."""
    hop = SAMPLING_RATE // 100
    power = np.square(clip[: len(clip) // hop * hop]).reshape(-1, hop).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-DROP / 10))
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > PAUSE_SECONDS * 100) + 1) if power.any() else []
    most, least = round(MAX_SECONDS * SAMPLING_RATE), round(MIN_SECONDS * SAMPLING_RATE)
    stretches = [clip[group[0] * hop : (group[-1] + 1) * hop][:most] for group in groups]
    return [fade(part) for part in stretches if len(part) >= least]


def fade(sound: np.ndarray) -> np.ndarray:
    """Sound (samples,) that begins and ends without a click."""
    ramp = np.linspace(0.0, 1.0, round(FADE_SECONDS * SAMPLING_RATE))
    faded = sound.copy()
    faded[: len(ramp)] *= ramp
    faded[-len(ramp) :] *= ramp[::-1]
    return faded


def compose(
    events: dict[str, list[np.ndarray]], beds: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, list[dict]]:
    """A soundscape (samples,), and when what sounds in it.

    Args:
        events: Sounds of each label.
        beds: Backgrounds; a short one is repeated.
        rng: Draws all.
    """
    bed = np.resize(beds[rng.integers(len(beds))], SECONDS * SAMPLING_RATE)
    level = 10 ** (BACKGROUND_LEVEL / 20)
    sound = bed * (level / max(np.sqrt(np.square(bed).mean()), 1e-6))
    found = []
    # No two of one label, which a frame classifier could not tell apart where they overlap.
    for label in rng.choice(LABELS, size=rng.integers(1, MOST_EVENTS + 1), replace=False).tolist():
        part = events[label][rng.integers(len(events[label]))]
        gain = level * 10 ** (rng.uniform(*SNR_RANGE) / 20) / np.sqrt(np.square(part).mean())
        start = rng.integers(len(sound) - len(part))
        sound[start : start + len(part)] += gain * part
        times = start / SAMPLING_RATE, (start + len(part)) / SAMPLING_RATE
        found.append({"onset": times[0], "offset": times[1], "label": label})
    return (sound / max(1.0, np.abs(sound).max())).astype(np.float32), found
