"""Recordings with events as pieces of a bounded length, so that each is learned as long as it is."""

import itertools
from math import ceil
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from feature_extraction.events import crop_events, read_events

from .clips import clip_lengths

# How many crops a piece is at most as long as: an epoch, which hears one of each, hears a third of the sound or more.
CROPS = 3


class RecordingPieces(torch.utils.data.Dataset):
    """Equal pieces of recordings, each with the events in it; nothing is copied.

    Args:
        recordings: "audio" and "labels", the events.
        crop_seconds: Length of the crops that are learned.
        sampling_rate: Of the sound, in Hz.
    """

    def __init__(self, recordings: Dataset, crop_seconds: float, sampling_rate: int):
        self.recordings = recordings
        # A slice of a row in Arrow's format is read from disk alone.
        self._sound = recordings.select_columns("audio").with_format("arrow")
        self._places, self._events = [], []
        for row, length in enumerate(clip_lengths(recordings)):
            events = read_events(recordings[row]["labels"])
            count = max(1, ceil(length / (CROPS * crop_seconds * sampling_rate)))
            edges = np.linspace(0, length, count + 1).round().astype(int).tolist()
            for start, end in itertools.pairwise(edges):
                self._places.append((row, start, end))
                self._events.append(crop_events(events, start / sampling_rate, end / sampling_rate))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, start, end = self._places[index]
        samples = self._sound[row]["audio"][0].values.slice(start, end - start)
        return {"audio": samples.to_numpy(), "labels": self._events[index]}
