"""A multi-label data set made of esc10: two or three sounds of different classes at once."""

from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
from datasets import Audio, ClassLabel, Dataset, Features, List, Value, load_dataset

from modeling_fftp.audio_stream_fftp import read_audio
from modeling_fftp.training.data.sources import find_column

SAMPLING_RATE = 16000
MIXTURES_PER_FOLD = 150
# Loudness of a sound in a mixture, in decibels around its own.
GAIN_RANGE = 6.0


def make_mixtures(source: Path, folder: Path, seed: int = 0) -> None:
    """Write audio, labels and fold of every mixture to a folder; the same for the same seed.

    Sounds of one mixture come from one fold, so folds stay apart.

    Args:
        source: esc10 in Hub layout, with a column `fold`.
        folder: Where the parquet file goes; made where it is missing.
        seed: Decides sounds and gains.
    """
    clips = load_dataset(str(source), split="train").cast_column("audio", Audio(decode=False))
    label_column = find_column(clips, "label")
    names = clips.features[label_column].names
    rng = np.random.default_rng(seed)
    rows = {"audio": [], "labels": [], "fold": []}
    folds, labels = np.asarray(clips["fold"]), np.asarray(clips[label_column])
    sounds = [read_audio(audio, SAMPLING_RATE) for audio in clips["audio"]]
    for fold in np.unique(folds):
        for _ in range(MIXTURES_PER_FOLD):
            classes = rng.choice(len(names), size=rng.integers(2, 4), replace=False)
            chosen = [rng.choice(np.flatnonzero((folds == fold) & (labels == label))) for label in classes]
            gains = 10 ** (rng.uniform(-GAIN_RANGE, GAIN_RANGE, len(chosen)) / 20)
            length = max(len(sounds[index]) for index in chosen)
            mixture = np.zeros(length, dtype=np.float32)
            for index, gain in zip(chosen, gains, strict=True):
                mixture[: len(sounds[index])] += gain * sounds[index]
            rows["audio"].append(as_flac(mixture / max(1.0, np.abs(mixture).max())))
            rows["labels"].append(sorted(int(label) for label in classes))
            rows["fold"].append(int(fold))
    write_clips(rows, {"labels": List(ClassLabel(names=names)), "fold": Value("int64")}, folder)


def write_clips(rows: dict[str, list], features: dict, folder: Path, split: str = "train") -> None:
    """Write a split of clips in Hub layout: "audio", as `as_flac` makes it, and columns of these features."""
    # What an undecoded audio column holds; `Audio` itself would need torchcodec to write it.
    audio = {"bytes": Value("binary"), "path": Value("string")}
    Dataset.from_dict(rows, features=Features({"audio": audio, **features})).to_parquet(folder / f"{split}.parquet")


def as_flac(waveform: np.ndarray) -> dict:
    """An undecoded entry of an audio column."""
    file = BytesIO()
    soundfile.write(file, waveform, SAMPLING_RATE, format="FLAC")
    return {"bytes": file.getvalue(), "path": None}
